"""Published values of one model: a row of eval/anchors.yaml, or a result on a recipe's card."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ropewalk.conf.rules import setting

OWN = "own"
"""The tokenizer of a score whose lengths each model counts in its own tokens."""
IDENTITY = ("protocol", "data", "haystack", "tokenizer")
_TEXTS = ("model", "metric", "protocol", "data", "tokenizer", "by", "source")


@dataclass(kw_only=True)
class PublishedResult:
    """What was measured, how, on what, and where it was published."""

    row: int | None = None
    """In the survey of eval/anchors.yaml; None: on a card."""
    model: str
    metric: str
    protocol: str
    data: str
    haystack: str | None = None
    tokenizer: str
    by: str
    """What `at` counts: length, steps, task, ..."""
    at: list[Any] = setting(factory=list)
    """Whole numbers or names."""
    values: list[Any] = setting(factory=list)
    """One for each place; null where none was published."""
    source: str
    second_hand: bool = False
    """Whether it was read in others' notes of the source."""
    n: int | None = None
    """Questions or documents."""
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
        empty = [key for key in _TEXTS if not isinstance(getattr(self, key), str)]
        if empty or not isinstance(self.second_hand, bool):
            return f"{(empty or ['second_hand'])[0]} of another type"
        return None

    def problems(self, prefix: str) -> Iterator[str]:
        if problem := self.problem():
            yield (
                f"{prefix.rstrip('.')} has {problem}; each place has one value, a number or null; "
                "mend it"
            )

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether the row was measured the same way. A row that does not say so does not fit."""
        keys = [key for key in IDENTITY if key != "tokenizer" or self.tokenizer != OWN]
        return all(row.get(key) == getattr(self, key) for key in keys)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
