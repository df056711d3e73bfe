"""Composes the configuration with Hydra, and turns Hydra's errors into one line each."""

import re
from collections.abc import Sequence
from typing import Any

import yaml
from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ropewalk.conf.check import check
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import ROPE_METHODS
from ropewalk.conf.schema import Config
from ropewalk.launch.config import phases
from ropewalk.launch.config.phases import LENGTH_MAPPINGS

# For some overrides (rope=null, schema=2, model.scratch.x=1) Hydra raises bare Python exceptions.
HYDRA_ERRORS = (HydraException, OmegaConfBaseException, ValueError, AssertionError, AttributeError)
GROUPS = ("recipe", "rope", "mixture")
KINDS = {
    "Integer": ("a whole number", "2048"),
    "Float": ("a number", "2.0"),
    "bool": ("true or false", "true"),
}
"""OmegaConf's name of a type: how we call it, and an example."""
_WRONG_KIND = re.compile(
    r"(?s)Value '(.*)' (?:of type '.*' could not be converted to|is not a valid) "
    r"(Integer|Float|bool)\b"
)
_LITERAL = re.compile(r"^(data\.(sources\.[^.=]+\.[^.=]+|length_weights|buckets)=)")
_NOISE = ("full_key", "object_type", "reference_type", "Set the environment")


def register() -> None:
    """Put the dataclasses where the YAML finds them (`/schema/...`), and forget an earlier use."""
    store = ConfigStore.instance()
    store.store(group="schema", name="config", node=Config)
    for method, kind in ROPE_METHODS.items():
        store.store(group="schema/rope", name=method, node=kind)
    GlobalHydra.instance().clear()


def override_key(override: str) -> str:
    """`+train.optimizer.lr=1` -> `train.optimizer.lr`."""
    return override.split("=")[0].lstrip("+")


def is_literal(override: str) -> bool:
    """Whether we parse this override ourselves, because Hydra would refuse or change it.

    A new `data.sources.NAME` is a new key, and Hydra's grammar cannot spell ranges such as `<4K`.
    """
    return bool(_LITERAL.match(override))


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], DictConfig]:
    """Hydra's overrides, and the values of the literal ones."""
    literal = [override for override in overrides if is_literal(override)]
    return [o for o in overrides if not is_literal(o)], literal_values(literal)


def literal_values(overrides: Sequence[str]) -> DictConfig:
    """Values taken to the letter; only mappings by length are YAML.

    As YAML, `*.py` would be an alias, `2024_01` a number and `x #1` half a comment.
    """
    values = OmegaConf.create({})
    for override in overrides:
        key, text = override.split("=", 1)
        value: Any = None if text == "null" else text
        if value is not None and key.rsplit(".", 1)[-1] in LENGTH_MAPPINGS:
            value = _parse_mapping(text)
        OmegaConf.update(values, key, value)
    return values


def _parse_mapping(text: str) -> Any:
    """`{"<4K": 0.1}` as a dict; any other text unchanged, and the check refuses it."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, dict) else text


def compose_node(overrides: Sequence[str]) -> DictConfig:
    """The values of the YAML files and of Hydra's overrides, unchecked."""
    register()
    with initialize_config_module("ropewalk.conf", version_base="1.3"):
        return compose("config", overrides=list(overrides))


def compose_checked(overrides: Sequence[str]) -> Config:
    """Compose all overrides and check the result.

    Raises: ConfigError with the problems that `check` finds; HYDRA_ERRORS for a bad override.
    """
    hydra_overrides, literal = split_overrides(overrides)
    composed = compose_node(hydra_overrides)
    OmegaConf.set_struct(composed, False)
    _clear_replaced_mappings(composed, literal)
    merged: Any = OmegaConf.merge(composed, literal)
    if merged.phase:
        rule = "it is written into the settings of each of `phases`"
        raise ConfigError(f"phase is {merged.phase}; {rule}; leave it out")
    return phases.check_phases(merged, one_line) if merged.phases else check(merged)


def _clear_replaced_mappings(composed: DictConfig, literal: DictConfig) -> None:
    """A mapping by length replaces a preset's; a merge alone would add to it."""
    sources = OmegaConf.select(literal, "data.sources") or ()
    for section in ("data", *(f"data.sources.{name}" for name in sources)):
        for key in (f"{section}.{name}" for name in LENGTH_MAPPINGS):
            if OmegaConf.select(literal, key) is not None and OmegaConf.select(composed, key):
                OmegaConf.update(composed, key, {}, merge=False)


def one_line(error: BaseException, full_key: str = "") -> str:
    """Hydra's message in one line, or its cause's; a value of a wrong type in our own words."""
    cause = error.__cause__
    text = str(cause if isinstance(cause, OmegaConfBaseException) else error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    keys = [line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key")]
    key = full_key or next(iter(keys), "")
    message = " ".join(line for line in lines if not line.startswith(_NOISE))
    if key and (match := _WRONG_KIND.match(message)):
        return _wrong_kind(key, *match.groups())
    return f"{message} (at {key})" if key and key not in message else message


def _wrong_kind(key: str, value: str, kind: str) -> str:
    """The problem line for a value that OmegaConf could not convert."""
    rule, example = KINDS[kind]
    is_list_item = key.endswith("]")  # no override sets a single item, so there is no example
    way_out = "correct it" if is_list_item else f"e.g. {key}={example}"
    return f"{key} is {value or 'empty'}; it must be {rule}; {way_out}"
