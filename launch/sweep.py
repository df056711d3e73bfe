"""`--multirun`: every combination of `key=a,b`, in the grammar of Hydra's overrides."""

import itertools
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from ropewalk.conf.errors import ConfigError
from ropewalk.launch.config.hydra import is_literal, one_line, override_key


def sweep(overrides: Sequence[str]) -> list[list[str]]:
    """The overrides of each run, with a `name=` made of the values that differ.

    Raises: ConfigError for an override that cannot be parsed or enumerated.
    """
    literal = [override for override in overrides if is_literal(override)]
    composed = [override for override in overrides if override not in literal]
    try:
        parsed = OverridesParser.create().parse_overrides(composed)
        choices = {override.get_key_element(): _choices(override) for override in parsed}
    except HydraException as error:
        raise ConfigError(one_line(error)) from None
    swept = {override_key(o.get_key_element()) for o in parsed if o.is_sweep_override()} - {"name"}
    return [
        [*(o for o in run if not o.startswith("name=")), *literal, f"name={_name(run, swept)}"]
        for run in itertools.product(*choices.values())
    ]


def _choices(override: Override) -> list[str]:
    """The override once for each of its values; a later override of the same key replaces it."""
    key = override.get_key_element()
    if override.is_sweep_override():
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    return [f"{key}={override.get_value_element_as_str()}"]


def _name(overrides: Sequence[str], swept: set[str]) -> str:
    """`NAME-VALUE-VALUE`: the run's name or recipe, then the swept values."""
    values = dict(override.split("=", 1) for override in overrides)
    name = values.get("name") or values.get("recipe", "custom")
    label = "-".join(o.split("=", 1)[1] for o in overrides if override_key(o) in swept)
    return f"{name}-{label}" if label else name
