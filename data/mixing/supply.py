"""One source's documents in their buckets of length: what a round gives, and what a budget takes of each. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.conf.data_mixture import Rules
from ropewalk.conf.errors import DataError
from ropewalk.data.mixing import lengths
from ropewalk.data.mixing.shares import (
    Rates,
    SamplingRounds,
    Selection,
    first_to_run_out,
    refuse_empty_source,
    split,
)

WHOLE = ""  # the one bucket where none are set


@dataclass(frozen=True)
class BucketedSource:
    """`asked` are the buckets' shares; a bucket that has no document is filled by the others, by their shares."""

    name: str
    buckets: dict[str, SamplingRounds]
    asked: dict[str, float]

    @classmethod
    def of(
        cls,
        name: str,
        sizes: np.ndarray,
        tokens: np.ndarray,
        usable: np.ndarray,
        keys: np.ndarray,
        seed: int,
        rates: Rates,
        buckets: Rules,
    ) -> "BucketedSource":
        """All arrays (documents,): `sizes` decide the bucket, `tokens` may be taken of each."""
        masks = {text: usable & lengths.within(sizes, span) for span, _, text in buckets} or {
            WHOLE: usable
        }
        parts = {
            text: SamplingRounds.of(name, tokens, mask, keys, seed, rates)
            for text, mask in masks.items()
        }
        return cls(name, parts, {text: share for _, share, text in buckets} or {WHOLE: 1.0})

    @property
    def total(self) -> int:
        return sum(part.total for part in self.buckets.values())

    @property
    def filled(self) -> dict[str, float]:
        """The shares of the buckets that have documents. Raises: DataError when those are asked for nothing."""
        found = {text: share for text, share in self.asked.items() if self.buckets[text].total}
        if self.total and not sum(found.values()):
            wanted = ", ".join(text for text, share in self.asked.items() if share)
            raise DataError(
                f"data.buckets asks for {wanted} alone; a source must have a document in such a bucket, and {self.name} has none; give "
                "another bucket a share, or leave the source out"
            )
        return found

    def round(self) -> int:
        """Expected tokens of a round that keep the buckets' ratio: what the first bucket to run out allows. Raises: DataError."""
        refuse_empty_source(self.name, self.total)
        return first_to_run_out(
            self.filled, {text: self.buckets[text].round for text in self.filled}
        )

    def take(self, budget: int | None) -> Selection:
        """`budget` tokens, each bucket its part; None: one round, where there are no buckets."""
        if budget is None:
            return self.buckets[WHOLE].take(None)
        shares = [
            self.buckets[text].take(part)
            for text, part in split(budget, self.filled).items()
            if part
        ]
        index, taken, epoch, key = (
            np.concatenate([getattr(s, k) for s in shares])
            for k in ("index", "taken", "epoch", "key")
        )
        return Selection(index, taken, epoch, key, budget / self.total)

    def told(self, budget: int | None) -> dict[str, Any]:
        """The buckets in the ledger's words, tokens with marks: what was asked of each, and what it gave."""
        if budget is None or WHOLE in self.buckets:
            return {}
        asked, given = split(budget, self.asked), split(budget, self.filled)
        return {
            "buckets": {
                text: {"asked": tokens, "taken": given.get(text, 0)}
                for text, tokens in asked.items()
            }
        }


def refuse_empty(supplies: Mapping[str, BucketedSource]) -> None:
    """Raises: DataError for a bucket with a share in which no source has a document."""
    for text, share in next(iter(supplies.values())).asked.items():
        if share and not any(supply.buckets[text].total for supply in supplies.values()):
            raise DataError(
                f"data.buckets {text} is {share:g}; a bucket must hold a training document, and no source has one of that length; add "
                "such documents, or move the buckets' borders"
            )
