"""The words of a command, apart: what the sweep is, and what its runs have."""

from collections.abc import Sequence
from dataclasses import dataclass

from ropewalk.conf.sweeps import SweepConfig
from ropewalk.launch.config import compose
from ropewalk.launch.config.overrides import Override


@dataclass(frozen=True)
class Chosen:
    """A sweep's settings, and the words of its runs, of which some have several values."""

    settings: SweepConfig
    words: list[str]
    group: str = ""
    """NAME of `sweep=NAME`."""


def is_sweep(words: Sequence[str]) -> bool:
    """Whether words choose a sweep, without `-m`."""
    return bool(_group(words))


def choose(words: Sequence[str]) -> Chosen:
    """Take the words of the sweep out, and add its grid and what all its runs get.

    Raises: ConfigError.
    """
    parsed = [Override.of(word) for word in words]
    own = [word for word in parsed if _is_own(word.key)]
    settings = _settings(parsed, own)
    rest = [word.word for word in parsed if not _is_own(word.key)]
    present = {Override.of(word).key for word in rest}
    grid = {} if settings.kind == "search" else settings.grid
    extra = {**grid, **settings.fixed}
    rest += [f"{key}={value}" for key, value in extra.items() if key not in present]
    return Chosen(settings, rest, _group(words))


def _is_own(key: str) -> bool:
    return key == "sweep" or key.startswith("sweep.")


def _group(words: Sequence[str]) -> str:
    values = [word.value for word in map(Override.of, words) if word.key == "sweep"]
    return next((value for value in reversed(values) if value not in (None, "null")), "")


def _settings(parsed: Sequence[Override], own: Sequence[Override]) -> SweepConfig:
    """From the sweep's file, the recipe and the command line. Raises: ConfigError."""
    recipes = [word for word in parsed if word.key == "recipe" and "," not in (word.value or "")]
    words = [*(word for word in parsed if word.is_hydra), *recipes, *own]
    settings: SweepConfig = compose.section([word.word for word in words], "sweep")
    return settings
