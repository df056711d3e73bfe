"""From a composed configuration to a checked `Config`, frozen as `config.yaml`, and back."""

import dataclasses
import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ropewalk.conf import renamed, rules
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import ROPE_METHODS
from ropewalk.conf.schema import Config


def check(composed: DictConfig) -> Config:
    """The typed configuration. Raises: ConfigError with one line for each problem."""
    missing = OmegaConf.missing_keys(composed)
    unknown = dict(_unknown(composed))
    problems = [f"{key} is not set; it is required; add {key}=VALUE" for key in sorted(missing)]
    problems += unknown.values()
    if missing:
        for key in _complete_sections(composed, missing | set(unknown)):
            section: Any = OmegaConf.to_object(composed[key])
            problems += rules.problems(section, f"{key}.")
    else:
        config = OmegaConf.to_object(_typed(composed, unknown) if unknown else composed)
        assert isinstance(config, Config), type(config)
        problems += rules.problems(config)
    if problems:
        raise ConfigError("\n".join(problems))
    return config  # type: ignore[return-value]


def _unknown(node: DictConfig, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Keys that no dataclass has, each with its problem: `+key=value` and YAML add them."""
    known = _known(node)
    for name in map(str, node):
        key = f"{prefix}{name}"
        if name in known:
            if not OmegaConf.is_missing(node, name) and isinstance(node[name], DictConfig):
                yield from _unknown(node[name], f"{key}.")
        elif key in renamed.RENAMED:
            yield key, renamed.message(key, renamed.RENAMED[key])
        else:
            paths = dict(_names(node))
            nearest = difflib.get_close_matches(name, paths, 1)
            way_out = f"one of {', '.join(sorted(known))}"
            if nearest:
                way_out = f"did you mean {prefix}{paths[nearest[0]]}?"
            yield key, f"{key} is not a setting; {way_out}"


def _known(node: DictConfig) -> list[str]:
    """The settings of a section, or the keys of a mapping."""
    kind = OmegaConf.get_type(node)
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else None
    return [str(key) for key in node] if fields is None else [field.name for field in fields]


def _names(node: DictConfig) -> Iterator[tuple[str, str]]:
    """The settings of a section and its sub-sections: name and path below `node`; nearer
    settings last."""
    for key in map(str, node):
        if not OmegaConf.is_missing(node, key) and isinstance(node[key], DictConfig):
            yield from ((name, f"{key}.{path}") for name, path in _names(node[key]))
    yield from ((name, name) for name in _known(node))


def _complete_sections(composed: DictConfig, wrong: set[str]) -> Iterator[str]:
    """The sections without a missing or unknown key. They are checked nevertheless."""
    for key in map(str, composed):
        complete = not any(f"{name}.".startswith(f"{key}.") for name in wrong)
        if complete and isinstance(composed[key], DictConfig):
            yield key


def _typed(composed: DictConfig, unknown: Iterable[str] = ()) -> DictConfig:
    """The values on the dataclasses, without `unknown` keys; `rope` has its method's class."""
    values: Any = OmegaConf.to_container(composed)
    for key in unknown:
        *parents, name = key.split(".")
        section = values
        for parent in parents:
            section = section[parent]
        del section[name]
    kind = OmegaConf.get_type(composed, "rope")
    if not dataclasses.is_dataclass(kind):
        kind = ROPE_METHODS[values["rope"]["method"]]
    schema = OmegaConf.structured(Config)
    schema.rope = OmegaConf.structured(kind)
    return OmegaConf.merge(schema, values)  # type: ignore[return-value]


def to_yaml(config: Config) -> str:
    """The frozen form. Relative paths stay as the user wrote them."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def load(path: Path) -> Config:
    """Read a frozen `config.yaml`.

    Raises: ConfigError when the file is missing, has former names of settings, or does not fit the
        dataclasses.
    """
    try:
        frozen = OmegaConf.load(path)
        former = renamed.nested(OmegaConf.to_container(frozen))
        if former:
            lines = (f"{path.name}: {renamed.message(*pair)}" for pair in former)
            raise ConfigError("\n".join(lines))
        return check(_typed(frozen))  # type: ignore[arg-type]
    except (OmegaConfBaseException, yaml.YAMLError, OSError, LookupError, TypeError) as error:
        raise ConfigError(
            f"{path.name} is not readable; it must be a config.yaml that ropewalk froze; {error}"
        ) from error
