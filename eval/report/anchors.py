"""Published numbers of eval/anchors.yaml, each beside rows of the very same protocol only."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from importlib import resources
from typing import Any

import yaml

from ropewalk.conf.errors import DataError
from ropewalk.conf.published import PublishedResult


@cache
def published() -> tuple[PublishedResult, ...]:
    return tuple(
        parse(resources.files("ropewalk.eval").joinpath("anchors.yaml").read_text("utf-8"))
    )


def parse(text: str) -> list[PublishedResult]:
    """Every row, with the keys of its group. Raises: DataError for one that lacks something."""
    groups = yaml.safe_load(text)
    return [_anchor({**group, "rows": None} | row) for group in groups for row in group["rows"]]


def _anchor(entry: dict[str, Any]) -> PublishedResult:
    del entry["rows"]
    row_name = f"anchors.yaml row {entry.get('row')}"
    known = {field.name for field in fields(PublishedResult)}
    if unknown := sorted(set(entry) - known):
        raise DataError(
            f"{row_name} has {unknown[0]}; keys are {', '.join(sorted(known))}; rename it"
        )
    try:
        anchor = PublishedResult(**{**entry, "at": [*entry["at"]], "values": [*entry["values"]]})
    except (KeyError, TypeError) as error:
        raise DataError(f"{row_name} is incomplete; {error}; add it") from None
    if problem := anchor.problem():
        raise DataError(
            f"{row_name} has {problem}; a value is a number or null, one a row_name; mend it"
        )
    return anchor


def beside(
    rows: Mapping[str, Any], anchors: Sequence[PublishedResult] | None = None
) -> list[PublishedResult]:
    """The anchors that may stand beside the rows of a task, by column."""
    lists: Iterable[Any] = (part for part in rows.values() if isinstance(part, list))
    measured = [row for part in lists for row in part if isinstance(row, Mapping)]
    every = published() if anchors is None else anchors
    return [anchor for anchor in every if any(anchor.fits(row) for row in measured)]
