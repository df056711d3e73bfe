"""Published numbers of eval/anchors.yaml, each beside rows of the very same protocol only."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any

import yaml

from ropewalk.conf.errors import DataError

OWN = "own"
"""The tokenizer of a score whose lengths each model counts in its own tokens."""
IDENTITY = ("protocol", "data", "haystack", "tokenizer")


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """The published values of one model."""

    row: int
    """In the survey."""
    model: str
    metric: str
    protocol: str
    data: str
    haystack: str | None = None
    tokenizer: str
    by: str
    """What `at` counts: length, steps, task, ..."""
    at: tuple[int | str, ...]
    values: tuple[float | None, ...]
    source: str
    second_hand: bool = False
    """Whether it was read in others' notes of the source."""
    n: int | None = None
    note: str | None = None

    @property
    def points(self) -> list[tuple[int | str, float]]:
        """The published values, each with its place."""
        pairs = zip(self.at, self.values, strict=True)
        return [(place, value) for place, value in pairs if value is not None]

    def problem(self) -> str | None:
        """What is wrong with it."""
        if len(self.at) != len(self.values):
            return f"{len(self.values)} values at {len(self.at)} places"
        if not any(_is_number(value) for value in self.values):
            return "no value"
        if not all(value is None or _is_number(value) for value in self.values):
            return f"values {list(self.values)}"
        texts = ("model", "metric", "protocol", "data", "tokenizer", "by", "source")
        empty = [key for key in texts if not isinstance(getattr(self, key), str)]
        if empty or not isinstance(self.second_hand, bool):
            return f"{(empty or ['second_hand'])[0]} of another type"
        return None

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether the row was measured the same way. A row that does not say so does not fit."""
        keys = [key for key in IDENTITY if key != "tokenizer" or self.tokenizer != OWN]
        return all(row.get(key) == getattr(self, key) for key in keys)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@cache
def published() -> tuple[Anchor, ...]:
    return tuple(
        parse(resources.files("ropewalk.eval").joinpath("anchors.yaml").read_text("utf-8"))
    )


def parse(text: str) -> list[Anchor]:
    """Every row, with the keys of its group. Raises: DataError for one that lacks something."""
    groups = yaml.safe_load(text)
    return [_anchor({**group, "rows": None} | row) for group in groups for row in group["rows"]]


def _anchor(entry: dict[str, Any]) -> Anchor:
    del entry["rows"]
    row_name = f"anchors.yaml row {entry.get('row')}"
    known = {field.name for field in fields(Anchor)}
    if unknown := sorted(set(entry) - known):
        raise DataError(
            f"{row_name} has {unknown[0]}; keys are {', '.join(sorted(known))}; rename it"
        )
    try:
        anchor = Anchor(**{**entry, "at": tuple(entry["at"]), "values": tuple(entry["values"])})
    except (KeyError, TypeError) as error:
        raise DataError(f"{row_name} is incomplete; {error}; add it") from None
    if problem := anchor.problem():
        raise DataError(
            f"{row_name} has {problem}; a value is a number or null, one a row_name; mend it"
        )
    return anchor


def beside(rows: Mapping[str, Any], anchors: Sequence[Anchor] | None = None) -> list[Anchor]:
    """The anchors that may stand beside the rows of a task, by column."""
    lists: Iterable[Any] = (part for part in rows.values() if isinstance(part, list))
    measured = [row for part in lists for row in part if isinstance(row, Mapping)]
    every = published() if anchors is None else anchors
    return [anchor for anchor in every if any(anchor.fits(row) for row in measured)]
