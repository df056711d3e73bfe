"""What a search varies: settings, each with a range or with values."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ropewalk.conf import declared
from ropewalk.conf.errors import ConfigError
from ropewalk.launch.config.overrides import Override
from ropewalk.launch.sweep import grid

_RANGE = re.compile(r"\s*(interval|log)\((.*)\)\s*")


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    is_log: bool
    is_whole: bool

    def samples(self) -> list[str]:
        """Its borders, which are checked before the first trial."""
        return [self.text(self.low), self.text(self.high)]

    def text(self, value: Any) -> str:
        return str(int(value)) if self.is_whole else repr(float(value))


@dataclass(frozen=True)
class Choice:
    """Values as they are typed."""

    values: tuple[str, ...]

    def samples(self) -> list[str]:
        return [*self.values]

    def text(self, value: Any) -> str:
        return str(value)


Dimension = Range | Choice


def split(words: Sequence[str], space: Mapping[str, str]) -> tuple[list[str], dict[str, Dimension]]:
    """The words that all trials have, and what is searched: `space`, and words with values.

    Raises: ConfigError.
    """
    fixed, dimensions = list[str](), dict[str, Dimension]()
    for word in map(Override.of, words):
        dimension = _dimension(word)
        if dimension is None:
            fixed.append(word.word)
        else:
            dimensions[word.key] = dimension
    present = {word.key for word in map(Override.of, words)}
    for key, value in space.items():
        if key in present:
            continue
        dimension = _dimension(Override.of(f"{key}={value}"))
        if dimension is None:
            raise ConfigError(
                f"sweep.search.space.{key} is {value}; it must be interval(LOW,HIGH), "
                "log(LOW,HIGH) or values A,B; set one of them"
            )
        dimensions[key] = dimension
    return fixed, dimensions


def _dimension(word: Override) -> Dimension | None:
    """What a word searches; None for one value."""
    if word.value is not None and (match := _RANGE.fullmatch(word.value)):
        return _range(word, match[1], match[2])
    values = grid.choices(word)
    if len(values) < 2:
        return None
    return Choice(tuple(value or "" for value in values))


def _range(word: Override, kind: str, text: str) -> Range:
    """Raises: ConfigError."""
    key = word.key
    number = declared.required_type(declared.type_of(key)) if declared.exists(key) else None
    if number not in (int, float):
        reason = "is no number" if number is not None else "is not a setting"
        raise ConfigError(f"{key} is {word.value}; it {reason}; name a number, or give values A,B")
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = float("nan")
    if not low < high or (kind == "log" and low <= 0) or (number is int and low % 1 + high % 1):
        above = " above 0" if kind == "log" else ""
        unit = "whole numbers" if number is int else "numbers"
        raise ConfigError(
            f"{key} is {word.value}; it must be {kind}(LOW,HIGH) of {unit}{above}, the lower one "
            f"first; e.g. {key}={kind}({'1,8' if number is int else '1e-5,1e-3'})"
        )
    return Range(low, high, kind == "log", number is int)
