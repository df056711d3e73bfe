"""Settings of the mixture by document length: how often a document is used, the ratio of short to
long ones, repeats.

A document's length counts `data.begin` and `data.end`. Ranges are written `<4K`, `<=4K`, `>8K`,
`>=8K` or `4K-8K`, which is from 4,096 up to but not including 8,192; K is 1,024 and M 1,048,576.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from ropewalk.conf.rules import setting

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}
MIN_REPEATS, MAX_REPEATS = 0.001, 1000.0
"""Expected repeats; a number beyond them is probably a typing error."""
_NUMBER = r"(\d{1,15})\s*([KM]?)"
_RANGE = re.compile(rf"\s*(?:(<=|>=|<|>)\s*{_NUMBER}|{_NUMBER}\s*-\s*{_NUMBER})\s*", re.I)


class Range(NamedTuple):
    """Lengths of at least `low` and below `high` tokens."""

    low: int
    high: float  # a whole number, or inf


Rules = list[tuple[Range, float, str]]
"""Range, number and the range's text; the shortest lengths first."""


def parse(text: str) -> Range | None:
    """The range that `text` means; None for an empty range and for any other text."""
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    sign, *parts = match.groups()
    first, low, high = (
        int(n) * UNITS[u.upper()] if n else 0 for n, u in zip(parts[::2], parts[1::2], strict=True)
    )
    ends = {
        "<": (1, first),
        "<=": (1, first + 1),
        ">": (first + 1, math.inf),
        ">=": (max(first, 1), math.inf),
    }
    span = Range(*ends.get(sign, (max(low, 1), high)))
    return span if span.low < span.high else None


def rules(numbers: Mapping[str, float]) -> Rules:
    """Ranges and their numbers, from checked settings."""
    return sorted((span, n, text) for text, n in numbers.items() if (span := parse(text)))


def _range_problems(key: str, numbers: Mapping[str, float]) -> Iterator[str]:
    for text in [text for text in numbers if parse(text) is None]:
        yield (
            f"{key} has {text}; a range of lengths is written <4K, <=4K, >8K, >=8K or 4K-8K and "
            "is not empty; correct it"
        )
    for (first, _, text), (second, _, other) in pairwise(rules(numbers)):
        if first.high > second.low:
            yield f"{key} has {text} and {other}; ranges must not share a length; move a border"


def _repeats_problems(key: str, numbers: Mapping[str, float]) -> Iterator[str]:
    yield from _range_problems(key, numbers)
    for text, number in numbers.items():
        if 0 < number < MIN_REPEATS:
            yield (
                f"{key}.{text} is {number}; expected repeats must be 0 or at least {MIN_REPEATS}; "
                "e.g. 0.1"
            )


def _bucket_problems(key: str, numbers: Mapping[str, float]) -> Iterator[str]:
    yield from list(_range_problems(key, numbers)) or _gaps(key, rules(numbers))
    if numbers and all(number == 0 for number in numbers.values()):
        yield f"{key} shares add up to 0; at least one must be above 0; set a share such as 0.34"


def _gaps(key: str, buckets: Rules) -> Iterator[str]:
    if not buckets:
        return
    ends = [1, *(span.high for span, _, _ in buckets)]
    starts = [*(span.low for span, _, _ in buckets), math.inf]
    for end, start in zip(ends, starts, strict=True):
        if end < start:
            last = "" if start == math.inf else f" to {start - 1}"
            yield (
                f"{key} has no range for lengths from {end}{last}; buckets must hold every "
                "length; widen one"
            )


@dataclass(kw_only=True)
class SourceLengths:
    """Settings of a source about the lengths of its documents."""

    min_len: int | None = setting(None, at_least=1, way_out="unset it for none")
    """Shorter documents are left out of training, and counted; tokens."""
    max_len: int | None = setting(None, at_least=1, way_out="unset it for none")
    """Longer documents are left out of training, and counted; tokens."""
    length_weights: dict[str, float] | None = setting(
        None, at_least=0, at_most=MAX_REPEATS, way_out="e.g. 0.1"
    )
    """As `data.length_weights`, which it replaces for this source; {} for none."""

    @property
    def span(self) -> Range:
        """The lengths that are not left out."""
        return Range(self.min_len or 1, math.inf if self.max_len is None else self.max_len + 1)

    def problems(self, prefix: str) -> Iterator[str]:
        if self.min_len is not None and self.max_len is not None and self.min_len > self.max_len:
            yield (
                f"{prefix}min_len is {self.min_len}; it must not be above {prefix}max_len "
                f"{self.max_len}; change one"
            )
        yield from _repeats_problems(f"{prefix}length_weights", self.length_weights or {})


@dataclass(kw_only=True)
class MixtureConfig:
    """The settings of a `mixture=NAME` preset, beside the sources."""

    mixture: str | None = setting(None, fingerprint=False)
    """The preset's name, a record: choose one by `mixture=NAME`, which sets the fields below or the
    sources."""
    length_weights: dict[str, float] = setting(
        factory=dict, at_least=0, at_most=MAX_REPEATS, way_out="e.g. 0.1"
    )
    """How often a document is used in one round over its source, by its length:
    {"<4K": 0.1, ">8K": 2.0}; 1 for lengths without a number. Rounds follow until the source has its
    share: 0.1 is once in ten rounds, 2.5 twice or three times a round. Made-up documents (synthetic
    sources) are all used, once."""
    buckets: dict[str, float] = setting(factory=dict, at_least=0, way_out="e.g. 0.34")
    """Shares of each source's tokens by the length of documents, relative to one another:
    {"<32K": 0.66, ">=32K": 0.34}. They must hold every length. Sources get their shares first; a
    source without documents in a bucket fills it from its others, which the ledger reports.
    Synthetic sources are not changed."""
    max_epochs: int = setting(
        4, at_least=1, way_out="1 uses a document at most once", fingerprint=False
    )
    """Largest number of times that one document may be used. Up to four epochs, repeated text was
    nearly as good as new (Muennighoff et al. 2023, arXiv 2305.16264)."""

    def problems(self, prefix: str) -> Iterator[str]:
        yield from _repeats_problems(f"{prefix}length_weights", self.length_weights)
        yield from _bucket_problems(f"{prefix}buckets", self.buckets)

    def preset_problems(self, prefix: str, weighted: bool) -> Iterator[str]:
        """`weighted`: whether a source has a weight or length weights."""
        chosen = bool(weighted or self.length_weights or self.buckets)
        if self.mixture == "uniform" and chosen:
            yield (
                f"{prefix}mixture is uniform; it uses every document equally often, so weights, "
                "length_weights and buckets must be unset; unset them or choose another mixture"
            )
        elif self.mixture not in (None, "uniform") and not chosen:
            yield (
                f"{prefix}mixture is {self.mixture}; it only records the preset, and no setting "
                f"of a preset is set; write mixture={self.mixture}"
            )
