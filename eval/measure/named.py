"""The models of `eval.models`: each under the rope of its own config, or under a given plan."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from ropewalk.conf.errors import ConfigError, DataError, problem_lines
from ropewalk.conf.eval_models import EvalModelConfig, reference_column
from ropewalk.conf.model import ModelConfig
from ropewalk.conf.rope_methods import RopeConfig
from ropewalk.conf.schema import Config
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.tokenizer import RunTokenizer
from ropewalk.eval.measure.columns import Column, build_kwargs
from ropewalk.train.base import Base, base_config, locate
from ropewalk.train.model import build as models
from ropewalk.train.rope import plan as plans
from ropewalk.train.rope.plan import RopePlan

SETTING = re.compile(rf"(?<![\w.])model\.(?=(?:{'|'.join(f.name for f in fields(ModelConfig))})\b)")
"""`model.` of a setting, and not of a file such as model.safetensors."""


@dataclass(frozen=True)
class NamedModel:
    """A model of `eval.models`, located."""

    name: str
    settings: EvalModelConfig
    base: Base

    @cached_property
    def plan(self) -> RopePlan:
        """Raises: ConfigError."""
        config = base_config(self.base)
        own = plans.make(RopeConfig(), config, self.base.name).unscaled
        if self.settings.rope is None:
            return own
        path = Path(self.settings.rope).expanduser()
        if not path.is_file():
            raise ConfigError(
                f"eval.models.{self.name}.rope is {self.settings.rope}; it must be a rope.json of "
                "ropewalk rope, and there is no such file; correct the path"
            )
        try:
            given = RopePlan.read(path)
        except DataError as error:
            raise ConfigError(
                f"eval.models.{self.name}.rope is {path.name}; it must be a rope.json as ropewalk "
                "rope wrote it, and its hash is not that of its tables; name another, or write it "
                "anew"
            ) from error
        tables = (given.inv_freq, given.base["inv_freq"])
        if not any(_equal(table, own.inv_freq) for table in tables):
            raise ConfigError(
                f"eval.models.{self.name}.rope is {Path(self.settings.rope).name}; it must be a "
                "plan for this model, and its base has other rotary frequencies; make it with "
                "ropewalk rope for this model"
            )
        return given

    @cached_property
    def tokenizer(self) -> RunTokenizer:
        """Raises: ConfigError."""
        assert self.base.path is not None
        return tokenizers.load(self.base.path, self.base.revision, self.base.trust_remote_code)

    def column(self, config: Config) -> Column:
        load = partial(
            models.build, self.base, self.plan, when=f"of {self.name}", **build_kwargs(config)
        )
        return Column(
            self.name,
            load,
            self.plan,
            f"of {self.name}",
            lambda: self.base.identity,
            self.base.name,
            self.base,
            self.tokenizer,
        )


def named_models(config: Config) -> dict[str, NamedModel]:
    """The models of `eval.models`, located.

    Raises: ConfigError with the problems of all.
    """
    models_by_name, lines = dict[str, NamedModel](), list[str]()
    for name, settings in config.eval.models.items():
        try:
            base = _located(name, settings, Path(config.cache_dir).expanduser())
            models_by_name[name] = NamedModel(name, settings, base)
        except ConfigError as error:
            lines += in_its_words(name, str(error).splitlines())
    if lines:
        raise ConfigError("\n".join(lines))
    return models_by_name


def _located(name: str, settings: EvalModelConfig, cache: Path) -> Base:
    model = ModelConfig(
        path=settings.path,
        revision=settings.revision,
        gguf_file=settings.gguf_file,
        trust_remote_code=settings.trust_remote_code,
    )
    return locate(model, cache)


def in_its_words(name: str, lines: list[str]) -> list[str]:
    """Lines about `model`, whose settings are those of `eval.models.NAME`."""
    return [SETTING.sub(f"eval.models.{name}.", line) for line in lines]


def of_data(config: Config) -> str | None:
    """The named model whose tokenizer and config the stages before eval use; None where `model` is
    set to another."""
    model = config.model
    for name, settings in config.eval.models.items():
        its_own = (settings.path, settings.revision, settings.gguf_file)
        if config.eval.run_models is False and its_own == (
            model.path,
            model.revision,
            model.gguf_file,
        ):
            return name
    return None


def problems(config: Config, length: int | None) -> list[str]:
    """Of every named model: its config, plan, tokenizer, and its window against the longest context
    measured. `length`: None for the window of the one that the others are compared with."""
    try:
        named = named_models(config)
    except ConfigError as error:
        return str(error).splitlines()
    lines = [line for model in named.values() for line in _file_problems(model)]
    if lines or not named:
        return lines
    name = reference_column(config.eval.reference, list(named))
    length = length or named[name].plan.max_position_embeddings
    return [line for model in named.values() for line in _window_problems(model, length)]


def _file_problems(model: NamedModel) -> list[str]:
    lines = problem_lines(lambda: model.plan) or problem_lines(lambda: model.tokenizer)
    if not lines:
        rows = getattr(base_config(model.base).get_text_config(decoder=True), "vocab_size", None)
        lines = tokenizers.size_problems(model.tokenizer, model.base.name, rows)
    return in_its_words(model.name, lines)


def _window_problems(model: NamedModel, length: int) -> Iterator[str]:
    window, key = model.plan.max_position_embeddings, f"eval.models.{model.name}"
    if length > window and not model.settings.beyond_window:
        origin = "plan" if model.settings.rope else "config"
        yield (
            f"{key} has a window of {window} tokens by its {origin}; eval measures up to {length}, "
            f"and a model must be made for that; lower eval.length, or set "
            f"{key}.beyond_window=true to measure it beyond on purpose"
        )


def _equal(a: list[float], b: list[float]) -> bool:
    return len(a) == len(b) and bool(np.allclose(a, b, rtol=1e-6, atol=0))
