"""Overrides of the command line -> one checked configuration."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ropewalk.conf import declared, renamed, rules
from ropewalk.conf.check import check
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.phases import REPLACED_MAPPINGS
from ropewalk.conf.schema import Config
from ropewalk.launch.config import files, finished_run, only_models, phase_words, phases
from ropewalk.launch.config.hydra import HYDRA_ERRORS, compose_node, one_line
from ropewalk.launch.config.overrides import Override, nested, repeated_models, typed


def compose(words: Sequence[str], verb: str = "run") -> Config:
    """The checked configuration for a verb, which decides what must be set.

    Raises: ConfigError that lists every problem, one a line.
    """
    pairs = [renamed.renaming(word) for word in words]
    present = [
        word.replace(*pair, 1) if pair else word for word, pair in zip(words, pairs, strict=True)
    ]
    problems = [renamed.message(*pair) for pair in pairs if pair]
    try:
        config = _compose(present, verb)
    except ConfigError as error:
        problems += str(error).splitlines()
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return config


def _compose(words: Sequence[str], verb: str) -> Config:
    """`compose` for words under present names. A wrong file hides what the check would find."""
    command = _Command(words)
    problems = command.problems
    if file_problems := command.file_problems():
        raise ConfigError("\n".join(file_problems + problems))
    try:
        merged = command.merged()
        if verb == "eval":
            merged = finished_run.with_training(merged, command.values.get("train", {}))
        if only_models.is_meant(merged, verb, command.wrong):
            merged, verb = only_models.completed(command.merged(rope="none")), "models"
            if not merged.eval.models:
                command.wrong += ["model.path", "eval.run_models"]
        elif verb == "eval" and not merged.eval.models and only_models.lacks_training(merged):
            problems.append(only_models.NOTHING_TO_MEASURE)
        problems += [
            f"{key} is {merged[key]}; {rule}; leave it out"
            for key, rule in declared.NOT_TO_BE_SET.items()
            if merged[key]
        ]
        problems += _warm_up_problems(merged, command.values)
        phases: Any = OmegaConf.to_container(merged.phases)
        problems += phase_words.idle_problems(
            phases,
            command.values,
            command.method,
            command.phase_words,
        )
        return _check(merged, verb, problems, command.wrong)
    except HYDRA_ERRORS as error:
        raise ConfigError("\n".join([*problems, one_line(error)])) from None


def _check(merged: DictConfig, verb: str, problems: list[str], wrong: Sequence[str]) -> Config:
    """Raises: ConfigError with `problems` and those that the check finds beside them."""
    try:
        if merged.phases:
            config = phases.check_phases(merged, verb, wrong)
        else:
            config = check(merged, verb, wrong)
    except ConfigError as error:
        problems = [*problems, *str(error).splitlines()]
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def _warm_up_problems(merged: DictConfig, values: Mapping[str, Any]) -> list[str]:
    """A warm-up that the user set and the training is too short for.

    A recipe's own warm-up may be longer than a training that the command line shortens to try it.
    """
    train: Mapping[str, Any] = values.get("train", {})
    warm_up, steps = merged.train.schedule.warmup_steps, OmegaConf.select(merged, "train.steps")
    is_set = "warmup_steps" in train.get("schedule", {}) or "steps" not in train
    if not is_set or not steps or not warm_up > steps:
        return []
    return [
        f"train.schedule.warmup_steps is {warm_up}; the training has {steps} steps, so the "
        "learning rate would never reach its peak; lower it, or raise train.steps"
    ]


def unchecked(words: Sequence[str]) -> DictConfig:
    """The composed values of words that have no problem. Raises: HYDRA_ERRORS."""
    return _Command(words).merged()


def section(words: Sequence[str], name: str) -> Any:
    """The values of one section, as its dataclass; the rest of the words is not checked.

    Raises: ConfigError for a file or a word that is wrong, and for a value that breaks its rule.
    """
    command = _Command(words)
    if problems := command.file_problems() + command.problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    try:
        values: Any = OmegaConf.to_object(command.merged()[name])
    except HYDRA_ERRORS as error:
        raise ConfigError(one_line(error)) from None
    if problems := [*rules.problems(values, f"{name}.")]:
        raise ConfigError("\n".join(problems))
    return values


class _Command:
    """The words of a command line: what they choose, set and remove, and their problems."""

    def __init__(self, words: Sequence[str]) -> None:
        parsed = [Override.of(word) for word in words]
        self.hydra = [word for word in parsed if word.is_hydra]
        self.groups = [word for word in parsed if word.is_group]
        self.removed: list[str] = []
        self.wrong: list[str] = []
        """Keys whose value has a problem."""
        self.problems: list[str] = []
        self.phase_words: list[phase_words.PhaseWord] = []
        pairs: list[tuple[str, Any]] = []
        for word in parsed:
            for_phases, problems = phase_words.read(word)
            self.problems += problems
            if for_phases is not None and not problems:
                self.phase_words.append(for_phases)
            if for_phases is not None or problems:
                continue
            if word.removes and word.source:
                self.removed.append(word.source)
            elif word not in (*self.hydra, *self.groups):
                value, problems = typed(word)
                self.problems += problems
                if problems:
                    self.wrong.append(word.key)
                else:
                    pairs.append((word.key, value))
        self.problems += repeated_models(parsed)
        self.values: Mapping[str, Any] = nested(pairs)

    def file_problems(self) -> list[str]:
        """What is wrong with the files that the groups choose."""
        folders = files.search_folders([word.word for word in self.hydra])
        chosen = {word.key: word.value or "" for word in self.groups}
        return [line for pair in chosen.items() for line in files.problems(*pair, folders)]

    @property
    def method(self) -> str | None:
        """The METHOD of `rope=METHOD`."""
        return next((word.value for word in self.groups if word.key == "rope"), None)

    def merged(self, **groups: str) -> DictConfig:
        """The YAML files with the command line's settings on top, in the run and its phases.

        `groups`: in place of those that the words choose. Raises: ConfigError for a phase's mixture
        whose file is wrong.
        """
        node = self._with_values(**groups)
        listed: Any = OmegaConf.to_container(node.phases)
        self.problems += phase_words.put(listed, self.phase_words)
        folders = files.search_folders([word.word for word in self.hydra])
        presets = phase_words.mixtures(listed)
        if lines := [p for name in presets for p in files.problems("mixture", name, folders)]:
            raise ConfigError("\n".join(self.problems + lines))
        node.phases = phase_words.with_mixtures(
            listed, node, lambda name: self._with_values(**groups | {"mixture": name})
        )
        return node

    def _with_values(self, **groups: str) -> DictConfig:
        """The same without what is said of phases."""
        chosen = [word.word for word in (*self.hydra, *self.groups) if word.key not in groups]
        node = compose_node([*chosen, *(f"{key}={value}" for key, value in groups.items())])
        OmegaConf.set_struct(node, False)
        self._remove_sources(node)
        self._drop_factor_of_recipe(node)
        _clear_replaced_mappings(node, self.values)
        return OmegaConf.merge(node, OmegaConf.create(dict(self.values)))  # type: ignore[return-value]

    def _remove_sources(self, node: DictConfig) -> None:
        for name in self.removed:
            if name in node.data.sources:
                del node.data.sources[name]
            else:
                names = ", ".join(map(str, node.data.sources)) or "none"
                self.problems.append(
                    f"~data.sources.{name} removes nothing; the recipe's sources are {names}; "
                    "name one of them"
                )

    def _drop_factor_of_recipe(self, node: DictConfig) -> None:
        """`rope=none` on the command line is factor 1, whatever window the recipe extends to."""
        chosen = {word.key: word.value for word in self.groups}
        rope: Mapping[str, Any] = self.values.get("rope", {})
        scaling = {"factor", "target_length", "max_position_embeddings"}
        if chosen.get("rope") == "none" and not scaling & set(rope):
            node.rope.factor = None if node.rope.factor is None else 1.0
            node.rope.target_length = node.rope.max_position_embeddings = None


def _clear_replaced_mappings(composed: DictConfig, values: Mapping[str, Any]) -> None:
    """A mapping by length replaces a preset's; a merge alone would add to it."""
    data: Mapping[str, Any] = values.get("data", {})
    sections = {"data": data}
    sections |= {f"data.sources.{name}": s for name, s in data.get("sources", {}).items()}
    for section, settings in sections.items():
        for name in REPLACED_MAPPINGS:
            key = f"{section}.{name}"
            if settings.get(name) is not None and OmegaConf.select(composed, key):
                OmegaConf.update(composed, key, {}, merge=False)


def config_dir_override(folder: str) -> str:
    """`--config-dir DIR` as an override of Hydra's. Raises: ConfigError if DIR is no folder."""
    if not Path(folder).is_dir():
        raise ConfigError(
            f"--config-dir is {folder}; it must be a folder with YAML such as recipe/mine.yaml; "
            "create it"
        )
    return f"hydra.searchpath=[file://{Path(folder).resolve()}]"
