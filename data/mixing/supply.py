"""Documents by length: the limits and rates of a source, and its buckets for a budget. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ropewalk.conf.data_mixture import Range, Rules
from ropewalk.conf.errors import DataError
from ropewalk.data.mixing.rounds import Rates, SamplingRounds, Selection
from ropewalk.data.mixing.shares import first_to_run_out, refuse_empty_source, split_budget

ALL_LENGTHS = ""  # the only bucket when no buckets are set


def within(lengths: np.ndarray, span: Range) -> np.ndarray:
    """(documents,) bool: which lengths lie in the range."""
    return (lengths >= span.low) & (lengths < span.high)


def outside(name: str, lengths: np.ndarray, train: np.ndarray, span: Range) -> np.ndarray:
    """(documents,) bool: the training documents that `min_len` and `max_len` exclude.

    Raises: DataError when they exclude every training document.
    """
    excluded = train & ~within(lengths, span)
    if train.any() and excluded.sum() == train.sum():
        low, high = lengths[train].min(), lengths[train].max()
        key, value = ("min_len", span.low) if low < span.low else ("max_len", int(span.high) - 1)
        raise DataError(
            f"data.sources.{name}.{key} is {value}; a source must keep a document, and all "
            f"{int(train.sum())} training documents of {name} are left out (they have {low} to "
            f"{high} tokens); change min_len or max_len, or leave the source out"
        )
    return excluded


def rates(lengths: np.ndarray, rules: Rules) -> np.ndarray | float:
    """(documents,) expected repeats in a round, 1 outside all ranges; one 1.0 without rules."""
    if not rules:
        return 1.0
    repeats = np.ones(len(lengths))
    for span, number, _ in rules:
        repeats[within(lengths, span)] = number
    return repeats


@dataclass(frozen=True)
class BucketedSource:
    """A source by bucket of length.

    The share of a bucket without documents goes to the others, by their shares.
    """

    name: str
    buckets: dict[str, SamplingRounds]
    shares: dict[str, float]  # as set

    @classmethod
    def from_documents(
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
        masks = {text: usable & within(sizes, span) for span, _, text in buckets}
        shares = {text: share for _, share, text in buckets}
        if not buckets:
            masks, shares = {ALL_LENGTHS: usable}, {ALL_LENGTHS: 1.0}
        rounds = {
            text: SamplingRounds(name, tokens, mask, keys, seed, rates)
            for text, mask in masks.items()
        }
        return cls(name, rounds, shares)

    @cached_property
    def total(self) -> int:
        """Tokens of the usable documents."""
        return sum(bucket.total for bucket in self.buckets.values())

    @property
    def filled_shares(self) -> dict[str, float]:
        """The shares of the buckets that have documents. Raises: DataError when all are 0."""
        shares = {text: share for text, share in self.shares.items() if self.buckets[text].total}
        if self.total and not sum(shares.values()):
            requested = ", ".join(text for text, share in self.shares.items() if share)
            raise DataError(
                f"data.buckets asks for {requested} alone; a source must have a document in such a "
                f"bucket, and {self.name} has none; give another bucket a share, or leave the "
                "source out"
            )
        return shares

    def round_tokens(self) -> int:
        """Expected tokens of a round in the buckets' ratio, until the first bucket runs out.

        Raises: DataError when the source, or every bucket with a share, is empty.
        """
        refuse_empty_source(self.name, self.total)
        shares = self.filled_shares
        return first_to_run_out(shares, {text: self.buckets[text].round_tokens for text in shares})

    def budgets(self, budget: int | None) -> dict[str, int | None]:
        """`budget` tokens split over the buckets; None: one round, only without buckets."""
        if budget is None:
            return {ALL_LENGTHS: None}
        return {text: n for text, n in split_budget(budget, self.filled_shares).items() if n}

    def parts(self, budget: int | None) -> Iterator[Selection]:
        """The takings, a bucket after the other. Each part has all those of some documents."""
        for text, tokens in self.budgets(budget).items():
            yield from self.buckets[text].parts(tokens)

    def most_takings(self, budget: int | None) -> int:
        """At least as many takings as `parts` has: of complete rounds."""
        budgets = self.budgets(budget).items()
        return sum(self.buckets[text].most_takings(tokens) for text, tokens in budgets)

    def ledger_entry(self, budget: int | None) -> dict[str, Any]:
        """Tokens requested and taken by bucket, boundary tokens included; empty without buckets."""
        if budget is None or ALL_LENGTHS in self.buckets:
            return {}
        requested = split_budget(budget, self.shares)
        filled = split_budget(budget, self.filled_shares)
        rows = {
            text: {"asked": tokens, "taken": filled.get(text, 0)}
            for text, tokens in requested.items()
        }
        return {"buckets": rows}


def refuse_empty(sources: Mapping[str, BucketedSource]) -> None:
    """Raises: DataError for a bucket with a share in which no source has a document."""
    for text, share in next(iter(sources.values())).shares.items():
        if share and not any(source.buckets[text].total for source in sources.values()):
            raise DataError(
                f"data.buckets {text} is {share:g}; a bucket must hold a training document, and no "
                "source has one of that length; add such documents, or move the buckets' borders"
            )
