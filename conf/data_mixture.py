"""The settings of the mixture that go by a document's length: how often it comes, the ratio of
short to long, repeats.

A document's length counts `data.begin` and `data.end`. Ranges are written `<4K`, `<=4K`, `>8K`,
`>=8K` or `4K-8K`, which is from 4,096 up to, not with, 8,192; K is 1,024 and M 1,048,576.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from ropewalk.conf.rules import setting

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}
LEAST, MOST = 0.001, 1000.0  # expected repeats: beyond, a typing error is likelier than a wish
NONE: Mapping[str, float] = {}
_NUMBER = r"(\d{1,15})\s*([KM]?)"
_RANGE = re.compile(rf"\s*(?:(<=|>=|<|>)\s*{_NUMBER}|{_NUMBER}\s*-\s*{_NUMBER})\s*", re.I)


class Range(NamedTuple):
    """Lengths of at least `low` and below `high` tokens."""

    low: int
    high: float  # a whole number, or inf


Rules = list[
    tuple[Range, float, str]
]  # range, number, as it was written; the shortest lengths first


def parse(text: str) -> Range | None:
    """None for what is no range of lengths, or an empty one."""
    found = _RANGE.fullmatch(text)
    if found is None:
        return None
    sign, *parts = found.groups()
    first, low, high = (
        int(n) * UNITS[u.upper()] if n else 0 for n, u in zip(parts[::2], parts[1::2], strict=True)
    )
    ends = {
        "<": (1, first),
        "<=": (1, first + 1),
        ">": (first + 1, math.inf),
        ">=": (max(first, 1), math.inf),
    }
    made = Range(*ends.get(sign, (max(low, 1), high)))
    return made if made.low < made.high else None


def rules(numbers: Mapping[str, float]) -> Rules:
    """Ranges and their numbers, of settings that were checked."""
    found = [(span, number, text) for text, number in numbers.items() if (span := parse(text))]
    return sorted(found)


def _range_problems(at: str, numbers: Mapping[str, float]) -> Iterator[str]:
    for text in [text for text in numbers if parse(text) is None]:
        yield (
            f"{at} has {text}; a range of lengths is written <4K, <=4K, >8K, >=8K or 4K-8K and is "
            "not empty; correct it"
        )
    for (one, _, text), (two, _, other) in pairwise(rules(numbers)):
        if one.high > two.low:
            yield f"{at} has {text} and {other}; ranges must not share a length; move a border"


def _weight_problems(at: str, numbers: Mapping[str, float]) -> Iterator[str]:
    yield from _range_problems(at, numbers)
    for text, number in numbers.items():
        if number != 0 and not LEAST <= number <= MOST:
            yield (
                f"{at} {text} is {number}; expected repeats must be 0, or between {LEAST} and "
                f"{MOST:g}; e.g. 0.1"
            )


def _bucket_problems(at: str, numbers: Mapping[str, float]) -> Iterator[str]:
    wrong = list(_range_problems(at, numbers))
    yield from wrong or _gaps(at, rules(numbers))
    for text, number in numbers.items():
        if not (math.isfinite(number) and number >= 0):
            yield (
                f"{at} {text} is {number}; a share must be a finite number of at least 0; e.g. 0.34"
            )
    if numbers and all(number == 0 for number in numbers.values()):
        yield f"{at} shares add up to 0; at least one must be above 0; set a share such as 0.34"


def _gaps(at: str, found: Rules) -> Iterator[str]:
    ends, starts = (
        [1, *(span.high for span, _, _ in found)],
        [*(span.low for span, _, _ in found), math.inf],
    )
    for end, start in zip(ends, starts, strict=True) if found else ():
        if end < start:
            last = "" if start == math.inf else f" to {start - 1}"
            yield (
                f"{at} has no range for lengths from {end}{last}; buckets must hold every length; "
                "widen one"
            )


@dataclass(kw_only=True)
class SourceLengths:
    """What a source may say of its documents' lengths."""

    min_len: int | None = None
    """Shorter documents are left out of training, and counted; tokens."""
    max_len: int | None = None
    """Longer documents are left out of training, and counted; tokens."""
    length_weights: dict[str, float] | None = None
    """As `data.length_weights`, for this source in its place; {} for none."""

    @property
    def span(self) -> Range:
        """The lengths that are not left out."""
        return Range(self.min_len or 1, math.inf if self.max_len is None else self.max_len + 1)

    def length_problems(self, at: str, synthetic: bool) -> Iterator[str]:
        for name in ("min_len", "max_len"):
            if (value := getattr(self, name)) is not None and value < 1:
                yield f"{at}.{name} is {value}; it must be at least 1 token; unset it for none"
        if self.min_len is not None and self.max_len is not None and self.min_len > self.max_len:
            yield (
                f"{at}.min_len is {self.min_len}; it must not be above {at}.max_len "
                f"{self.max_len}; change one"
            )
        for name in ("min_len", "max_len", "length_weights"):
            if synthetic and getattr(self, name) not in (None, NONE):
                yield (
                    f"{at}.{name} is {getattr(self, name)}; made-up documents are all taken, "
                    "once; unset it"
                )
        yield from _weight_problems(f"{at}.length_weights", self.length_weights or NONE)


@dataclass(kw_only=True)
class MixtureConfig:
    """What `mixture=NAME` presets set, beside the sources."""

    mixture: str | None = setting(None, fingerprint=False)
    """The preset's name, a record: choose one by `mixture=NAME`, which sets the fields below or
    the sources."""
    length_weights: dict[str, float] = field(default_factory=dict)
    """How often a document comes in a round over its source, by its length: {"<4K": 0.1, ">8K":
    2.0}; 1 where nothing is said. Round follows round until the source's share is met: 0.1 comes
    in one round of ten, 2.5 twice or three times a round. Made-up documents (synthetic sources)
    are all taken, once."""
    buckets: dict[str, float] = field(default_factory=dict)
    """Shares of each source's tokens by the length of documents, relative to one another:
    {"<32K": 0.66, ">=32K": 0.34}. They must hold every length. Sources get their shares first;
    one that has no document in a bucket fills it from its others, which the ledger tells.
    Synthetic sources are left as they are."""
    max_epochs: int = setting(4, fingerprint=False)
    """The most times that one document may be taken. Up to four epochs, repeated text was nearly
    as good as new (Muennighoff et al. 2023, arXiv 2305.16264)."""

    def mixture_problems(self, sources: Iterable[Any]) -> Iterator[str]:
        yield from _weight_problems("data.length_weights", self.length_weights)
        yield from _bucket_problems("data.buckets", self.buckets)
        if self.max_epochs < 1:
            yield (
                f"data.max_epochs is {self.max_epochs}; a document must be allowed once; set at "
                "least 1"
            )
        chosen = bool(
            self.length_weights
            or self.buckets
            or any(s.length_weights or s.weight is not None for s in sources)
        )
        if self.mixture == "uniform" and chosen:
            yield (
                "data.mixture is uniform; it takes every document as often, so weights, "
                "length_weights and buckets must be unset; unset them or choose another mixture"
            )
        elif self.mixture not in (None, "uniform") and not chosen:
            yield (
                f"data.mixture is {self.mixture}; it only records the preset, and nothing that a "
                f"preset sets is set; say mixture={self.mixture}"
            )
