"""From a composed configuration to a checked `Config`, frozen as `config.yaml`, and back."""

import dataclasses
import difflib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.renamed import RENAMED, message
from ropewalk.conf.rope_methods import ROPE_METHODS
from ropewalk.conf.rules import problems as rule_problems
from ropewalk.conf.schema import Config


def _unknown(node: DictConfig, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Keys that are no field of their dataclass: `+key=value` and YAML merges let them in
    without a word."""
    kind = OmegaConf.get_type(node)
    known = (
        {f.name for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set(node)
    )
    for key in map(str, node):
        path = f"{prefix}{key}"
        if key not in known and path in RENAMED:
            yield path, message(path, RENAMED[path])
        elif key not in known:
            paths = dict(_names(node))
            near = difflib.get_close_matches(str(key), paths, 1)
            way_out = (
                f"did you mean {prefix}{paths[near[0]]}?"
                if near
                else f"one of {', '.join(sorted(map(str, known)))}"
            )
            yield f"{prefix}{key}", f"{prefix}{key} is not a setting; {way_out}"
        elif not OmegaConf.is_missing(node, key) and isinstance(node[key], DictConfig):
            yield from _unknown(node[key], f"{prefix}{key}.")


def _names(node: DictConfig) -> Iterator[tuple[str, str]]:
    """The settings of a section and its sub-sections: name and path below `node`; nearer
    settings last."""
    for key in map(str, node):
        if not OmegaConf.is_missing(node, key) and isinstance(node[key], DictConfig):
            yield from ((name, f"{key}.{path}") for name, path in _names(node[key]))
    kind = OmegaConf.get_type(node)
    known = (
        [f.name for f in dataclasses.fields(kind)]
        if dataclasses.is_dataclass(kind)
        else map(str, node)
    )
    yield from ((name, name) for name in known)


def check(composed: DictConfig) -> Config:
    """The typed configuration. Raises: ConfigError with one line for each problem."""
    problems = [
        f"{key} is not set; it is required; add {key}=VALUE"
        for key in sorted(OmegaConf.missing_keys(composed))
    ]
    unknown = dict(_unknown(composed))
    problems += unknown.values()
    missing = OmegaConf.missing_keys(composed)
    if missing:  # the complete sections are checked nevertheless
        for name in ("model", "rope", "data", "train", "eval", "calibrate", "export"):
            if any(key.startswith(f"{name}.") for key in missing | set(unknown)):
                continue
            section: Any = OmegaConf.to_object(composed[name])
            hand_checked = name in ("rope", "data")
            problems += section.problems() if hand_checked else rule_problems(section, f"{name}.")
    else:
        config = OmegaConf.to_object(_typed(composed, unknown) if unknown else composed)
        assert isinstance(config, Config), type(config)
        problems += config.problems()
    if problems:
        raise ConfigError("\n".join(problems))
    return config  # type: ignore[return-value]


def _typed(values: DictConfig, leave_out: Iterable[str] = ()) -> DictConfig:
    """Plain values on the dataclasses, without the keys `leave_out`; the rope method finds its
    class by name."""
    plain: Any = OmegaConf.to_container(values)
    for key in leave_out:
        *parents, name = key.split(".")
        section = plain
        for parent in parents:
            section = section[parent]
        del section[name]
    schema = OmegaConf.structured(Config)
    kind = OmegaConf.get_type(values, "rope")
    schema.rope = OmegaConf.structured(
        kind if dataclasses.is_dataclass(kind) else ROPE_METHODS[plain["rope"]["method"]]
    )
    return OmegaConf.merge(schema, plain)  # type: ignore[return-value]


def to_yaml(config: Config) -> str:
    """The frozen form. User paths outside the working folder stay as given: they are settings,
    not artifacts."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def load(path: Path) -> Config:
    """Read a frozen `config.yaml`.

    Raises: ConfigError when the file is missing, or no longer fits the schema.
    """
    try:
        return check(_typed(OmegaConf.load(path)))  # type: ignore[arg-type]
    except (OmegaConfBaseException, yaml.YAMLError, OSError, LookupError, TypeError) as error:
        raise ConfigError(
            f"{path.name} is not readable; it must be a config.yaml that ropewalk froze; {error}"
        ) from error
