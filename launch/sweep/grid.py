"""`--multirun`: every combination of `key=a,b`, each run under a name of its own."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from ropewalk.conf.artifacts.folders import MAX_RUN_NAME_BYTES
from ropewalk.conf.errors import ConfigError
from ropewalk.launch.config.overrides import Override, is_text
from ropewalk.launch.config.values import quoted, split

_FUNCTION = re.compile(r"(choice|range|interval|glob)\(.*\)", re.S)
_ONE_VALUE = re.compile(r"data\.sources\.[^.]+\.(path|pattern|template)")
"""Settings whose commas are part of the value."""
_SCALING = ("rope.factor", "rope.target_length", "rope.max_position_embeddings")
_NOT_IN_A_LABEL = re.compile(r"[^\w.+=-]+")


def sweep(words: Sequence[str]) -> list[list[str]]:
    """The overrides of each run, with a `name=` made of the values that differ.

    A factor that all methods share is left out for rope=none, which scales nothing.

    Raises: ConfigError for values that cannot be enumerated.
    """
    overrides, choices = _all_choices(words)
    swept = _swept(choices)
    runs = [dict(zip(choices, run, strict=True)) for run in itertools.product(*choices.values())]
    if "rope" in swept:
        runs = [_without_scaling(run) if run["rope"] == "none" else run for run in runs]
    runs = [dict(run) for run in dict.fromkeys(tuple(run.items()) for run in runs)]
    named = zip(runs, _names(runs, swept), strict=True)
    return [
        [*(_word(overrides[key], run[key]) for key in run if key != "name"), f"name={name}"]
        for run, name in named
    ]


def swept_keys(words: Sequence[str]) -> list[str]:
    """The settings that have several values. Raises: ConfigError."""
    return _swept(_all_choices(words)[1])


def _all_choices(
    words: Sequence[str],
) -> tuple[dict[str, Override], dict[str, list[str | None]]]:
    overrides = {word.key or word.word: word for word in map(Override.of, words)}
    return overrides, {key: choices(word) for key, word in overrides.items()}


def _swept(choices: dict[str, list[str | None]]) -> list[str]:
    return [key for key, values in choices.items() if len(values) > 1 and key != "name"]


def choices(override: Override) -> list[str | None]:
    """The values of one override; None for a word without a value."""
    value, key = override.value, override.key
    if value is None or _ONE_VALUE.fullmatch(key) or override.is_hydra:
        return [value]
    try:
        values = _enumerated(value) if _FUNCTION.fullmatch(value) else split(value)
    except ValueError as error:
        raise ConfigError(
            f"{key} is {value}; {error}; close it, or put the value in quotes"
        ) from None
    if not is_text(key):
        return [value.strip() for value in values]
    return [value[1:-1] if quoted(value) else value for value in values]


def _enumerated(value: str) -> list[str]:
    """The values of Hydra's `range(1,4)` or `choice(a,b)`. Raises: ValueError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return list(OverridesParser.create().parse_override(f"x={value}").sweep_string_iterator())
    except HydraException as error:
        raise ValueError(" ".join(str(error).split())) from None


def _without_scaling(run: dict[str, str | None]) -> dict[str, str | None]:
    return {key: value for key, value in run.items() if key not in _SCALING}


def _word(override: Override, value: str | None) -> str:
    return override.word if value is None else f"{override.word.partition('=')[0]}={value}"


def _names(runs: Sequence[dict[str, str | None]], swept: Sequence[str]) -> list[str]:
    """`NAME-VALUE-VALUE` for each run: its name or recipe, then the swept values; equal ones are
    numbered."""
    names = []
    for run in runs:
        name = run.get("name") or run.get("recipe") or "custom"
        label = "-".join(_label(run[key] or "") for key in swept if key in run)
        names.append(shortened(f"{name}-{label}" if label else name))
    return _numbered(names)


def _label(value: str) -> str:
    """A value as a part of a folder's name; of a path, its last part."""
    name = PurePosixPath(value).name if "/" in value else value
    return _NOT_IN_A_LABEL.sub("-", name).strip("-")


def shortened(name: str) -> str:
    """With room for a number behind it."""
    return name.encode()[: MAX_RUN_NAME_BYTES - 8].decode(errors="ignore")


def _numbered(names: Iterable[str]) -> list[str]:
    names = list(names)
    counts, numbers = Counter(names), Counter[str]()
    result = []
    for name in names:
        numbers[name] += 1
        result.append(name if counts[name] == 1 else f"{name}-{numbers[name]}")
    return result
