"""The number that a search optimises, from the files of a finished run."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from ropewalk.conf.artifacts.records import UNREADABLE, read_json
from ropewalk.conf.errors import ConfigError, RopewalkError
from ropewalk.train.results import METRICS_FILE

_PART = re.compile(r"([\w-]+)(?:\[(\w+)=([^\]]+)\])?")
FILES = ("results", "metrics")


def check(objective: str, verb: str) -> None:
    """Raises: ConfigError for one that no run of this verb has."""
    parts = objective.split(".")
    form = "results.COLUMN.TASK... or metrics.KEY"
    if parts[0] not in FILES or len(parts) < 2 or not all(map(_PART.fullmatch, parts)):
        raise ConfigError(
            f"sweep.search.objective is {objective}; it must be {form}; e.g. "
            "results.extended.perplexity.2048"
        )
    if parts[0] == "results" and verb == "train":
        raise ConfigError(
            f"sweep.search.objective is {objective}; ropewalk train measures nothing; use ropewalk "
            "run, or metrics.loss"
        )


def value(objective: str, run: Path) -> float:
    """Of a finished run: of several rows their mean. Raises: RopewalkError without a number."""
    head, *parts = objective.split(".")
    try:
        if head == "results":
            content = read_json(run / "eval" / "results.json")["models"]
        else:
            content = json.loads((run / "train" / METRICS_FILE).read_text().splitlines()[-1])
    except (*UNREADABLE, KeyError, IndexError) as error:
        raise RopewalkError(f"{run.name} has no {objective}: {error}") from None
    numbers = [number for number in _select(content, parts) if _is_number(number)]
    if not numbers or not math.isfinite(mean(numbers)):
        raise RopewalkError(f"{run.name} has no finite number for {objective}")
    return float(mean(numbers))


def _is_number(found: object) -> bool:
    return isinstance(found, int | float) and not isinstance(found, bool)


def _select(content: Any, parts: list[str]) -> Iterator[Any]:
    """The values at a path; the rows of a list are all taken, or those that `[key=value]` names."""
    if isinstance(content, list):
        for row in content:
            yield from _select(row, parts)
        return
    if not parts:
        yield content
        return
    match = _PART.fullmatch(parts[0])
    if match is None or not isinstance(content, dict) or match[1] not in content:
        return
    inner = content[match[1]]
    if match[2] is not None and isinstance(inner, list):
        inner = [row for row in inner if str(row.get(match[2])) == match[3]]
    yield from _select(inner, parts[1:])
