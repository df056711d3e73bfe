"""From a composed configuration to a checked `Config`, frozen as `config.yaml`, and back."""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ropewalk.conf import declared, renamed, rules
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import ROPE_METHODS, RopeConfig
from ropewalk.conf.schema import Config

SECTIONS = {
    "rope": ("name", "model", "rope"),
    "data": ("name", "model", "rope", "data"),
    "calibrate": ("name", "model", "rope", "data", "eval", "calibrate"),
    "models": ("name", "model", "rope", "data", "eval"),
    "plan": ("model",),
}
"""The sections whose required settings a verb needs; any other verb needs all. `models`: eval
without a training; `plan`: what cannot be planned without is asked for by the plan."""


def check(composed: DictConfig, verb: str = "run", wrong: Collection[str] = ()) -> Config:
    """The typed configuration.

    `verb` decides what must be set. `wrong`: keys whose value is refused already; no problem that
    depends on them is reported.

    Raises: ConfigError with one line for each problem.
    """
    values: Any = OmegaConf.to_container(composed)
    missing = set(_missing(values))
    unknown = list(dict.fromkeys(_unknown(values, Config)))
    if isinstance(values.get("rope"), dict):
        unknown += _unknown(values["rope"], _rope_class(composed, values), "rope.")
    needed = {key for key in missing - set(wrong) if _is_needed(key, verb)}
    problems = [f"{key} is not set; it is required; add {key}=VALUE" for key in sorted(needed)]
    problems += [declared.unknown(key) for key in unknown]
    config, lines = _check_rules(composed, {*missing, *wrong}, unknown)
    if _is_needed("data.sources", verb):
        lines += config.data.missing_source_problems("data.")
    problems += [line for line in lines if not line.startswith(tuple(f"{key} " for key in wrong))]
    if problems:
        raise ConfigError("\n".join(problems))
    return dataclasses.replace(config, unset=sorted({*config.unset, *missing}))


def _is_needed(key: str, verb: str) -> bool:
    return verb not in SECTIONS or key.split(".")[0] in SECTIONS[verb]


def _check_rules(
    composed: DictConfig, without_value: set[str], unknown: Sequence[str]
) -> tuple[Config, list[str]]:
    """The configuration with stand-ins for what has no value, and the problems of the others.

    A problem that does not depend on the missing values is there whatever stands in for them.
    """
    low = _with_stand_ins(composed, without_value, unknown, 0)
    lines = list(rules.problems(low))
    if without_value and lines:
        high = _with_stand_ins(composed, without_value, unknown, -1)
        common = set(rules.problems(high))
        lines = [line for line in lines if line in common]
    return low, lines


def _with_stand_ins(
    composed: DictConfig, without_value: set[str], unknown: Sequence[str], which: int
) -> Config:
    typed = _typed(composed, unknown) if unknown else composed
    if without_value:
        typed = typed.copy()
    for key in without_value:
        section = OmegaConf.select(typed, key.rpartition(".")[0]) if "." in key else typed
        if section is not None and (stand_ins := _stand_ins(key)):
            OmegaConf.update(typed, key, stand_ins[which])
    config = OmegaConf.to_object(typed)
    assert isinstance(config, Config), type(config)
    return config


def _stand_ins(key: str) -> list[Any]:
    """A small and a large value that the setting may have; none for lists, sections and keys that
    do not exist."""
    if not declared.exists(key) or declared.is_section(
        declared.required_type(declared.type_of(key))
    ):
        return []
    rule: rules.Rule = declared.field_of(key).metadata.get("rule", rules.Rule())
    kind = declared.required_type(declared.type_of(key))
    if rule.one_of and get_origin(kind) is not list:
        return [rule.one_of[0], rule.one_of[-1]]
    candidates: dict[Any, list[Any]] = {
        int: [0, 1, 2, 4, 16, 260, 1 << 40],
        float: [0.0, 1e-6, 0.5, 1.0, 2.0, 1e9],
        str: ["a", "b"],
        bool: [False, True],
    }
    return [value for value in candidates.get(kind, []) if rule.allows(value)]


def _unknown(values: Mapping[str, Any], section: Any, prefix: str = "") -> Iterator[str]:
    """Keys of nested `values` that the dataclass `section` does not have: YAML adds them."""
    known = {field.name for field in dataclasses.fields(section)}
    for name in map(str, values):
        key = f"{prefix}{name}"
        if name not in known:
            yield key
            continue
        hint = declared.required_type(declared.type_of(key))
        if isinstance(values[name], dict) and key != "rope":
            yield from _unknown_below(values[name], hint, f"{key}.")


def _unknown_below(values: Mapping[str, Any], hint: Any, prefix: str) -> Iterator[str]:
    if declared.is_section(hint):
        yield from _unknown(values, hint, prefix)
    elif get_origin(hint) is dict and declared.is_section(get_args(hint)[1]):
        for name, item in values.items():
            if isinstance(item, dict):
                yield from _unknown(item, get_args(hint)[1], f"{prefix}{name}.")


def _missing(values: object, key: str = "") -> Iterator[str]:
    """The keys of nested values that OmegaConf marks as missing."""
    if isinstance(values, dict):
        for name, item in values.items():
            yield from _missing(item, f"{key}.{name}" if key else str(name))
    elif isinstance(values, list):
        for number, item in enumerate(values):
            yield from _missing(item, f"{key}[{number}]")
    elif values == MISSING:
        yield key


def _rope_class(composed: DictConfig, values: Mapping[str, Any]) -> type[RopeConfig]:
    """The class of the method. Raises: LookupError, TypeError for a section without one."""
    kind = OmegaConf.get_type(composed, "rope")
    if isinstance(kind, type) and issubclass(kind, RopeConfig):
        return kind
    return ROPE_METHODS[values["rope"]["method"]]


def _typed(composed: DictConfig, unknown: Iterable[str] = ()) -> DictConfig:
    """The values on the dataclasses, without `unknown` keys; `rope` has its method's class."""
    values: Any = OmegaConf.to_container(composed)
    for key in unknown:
        *parents, name = key.split(".")
        section = values
        for parent in parents:
            section = section[parent]
        del section[name]
    kind = _rope_class(composed, values)
    schema = OmegaConf.structured(Config)
    schema.rope = OmegaConf.structured(kind)
    return OmegaConf.merge(schema, values)  # type: ignore[return-value]


def to_yaml(config: Config) -> str:
    """The frozen form. Relative paths stay as the user wrote them; `???` is unset."""
    values = OmegaConf.structured(config)
    for key in config.unset:
        OmegaConf.update(values, key, MISSING)
    OmegaConf.set_struct(values, False)
    del values["unset"]
    return OmegaConf.to_yaml(values)


def load(path: Path, verb: str = "run") -> Config:
    """Read a frozen `config.yaml`. `verb` decides what must be set.

    Raises: ConfigError when the file is missing, has former names of settings, or does not fit the
        dataclasses.
    """
    try:
        return of_values(OmegaConf.to_container(OmegaConf.load(path)), verb, path.name)
    except (OmegaConfBaseException, yaml.YAMLError, OSError, LookupError, TypeError) as error:
        raise ConfigError(
            f"{path.name} is not readable; it must be a config.yaml that ropewalk froze; {error}"
        ) from error


def of_values(frozen: Any, verb: str = "run", name: str = "manifest.json") -> Config:
    """The settings of a frozen form as plain values. Raises: as `typed_values`."""
    return check(typed_values(frozen, name), verb)


def typed_values(frozen: Any, name: str = "manifest.json") -> DictConfig:
    """A frozen form as plain values, from the file `name`, on the dataclasses; not yet checked.

    Raises: ConfigError for former names of settings; OmegaConf's errors, LookupError and TypeError
        for what does not fit the dataclasses.
    """
    if former := renamed.nested(frozen):
        lines = (f"{name}: {renamed.message(*pair)}" for pair in former)
        raise ConfigError("\n".join(lines))
    return _typed(OmegaConf.create(frozen))
