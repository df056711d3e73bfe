"""What is looked for among the sources' documents before they are mixed, and what is done about it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

EXACT = ("report", "remove")
NEAR = ("off", "report", "remove")
CONTAMINATION = ("off", "report", "remove", "error")


def _choice(at: str, value: str, choices: tuple[str, ...]) -> Iterator[str]:
    if value not in choices:  # YAML reads a bare off as false
        way_out = f'write "{choices[0]}" in quotes' if value == "False" else "choose one"
        yield f"{at} is {value}; it must be one of {', '.join(choices)}; {way_out}"


def _whole(at: str, value: int, least: int) -> Iterator[str]:
    if value < least:
        yield f"{at} is {value}; it must be at least {least}; raise it"


@dataclass(kw_only=True)
class DuplicatesConfig:
    """Training documents that repeat an earlier one, in the order of the sources and then of the documents."""

    exact: str = "report"
    """Documents of the same tokens: report (counted in the ledger) or remove (the first stays in the mixture)."""
    near: str = "off"
    """Documents that are alike, by MinHash: off, report or remove. Needs `pip install 'ropewalk[dedup]'`."""
    threshold: float = 0.8
    """Alike: this much of the two documents' n-grams is common to both (estimated Jaccard similarity). Changed words cost up to
    `ngram` n-grams each: 5% of them changed here and there leave 0.63, in one passage 0.9."""
    ngram: int = 5
    """Tokens of an n-gram."""
    permutations: int = 128
    """Numbers in a document's signature; the estimate's standard error is at most 0.5 / sqrt(permutations)."""

    def problems(self, at: str) -> Iterator[str]:
        yield from _choice(f"{at}.exact", self.exact, EXACT)
        yield from _choice(f"{at}.near", self.near, NEAR)
        if self.near == "remove" and self.exact == "report":
            yield f"{at}.near is remove; exact copies must then be removed too; set {at}.exact=remove"
        if not (math.isfinite(self.threshold) and 0.3 <= self.threshold <= 1):
            yield f"{at}.threshold is {self.threshold}; it must be between 0.3 and 1; e.g. 0.8"
        yield from _whole(f"{at}.ngram", self.ngram, 1)
        yield from _whole(f"{at}.permutations", self.permutations, 16)


@dataclass(kw_only=True)
class ContaminationConfig:
    """Text that stands both in training documents and in the held-out documents that eval reads."""

    action: str = "report"
    """off; report (in the ledger); remove (contaminated training documents leave the mixture); error (refuse)."""
    ngram: int = 32
    """Tokens that must be the same in a row to count."""
    share: float = 0.2
    """A training document is contaminated, and a held-out one dirty, when more than this share of its n-grams stands on the
    other side too. Llama 2 (arXiv 2307.09288, A.6) calls text clean below it."""

    def problems(self, at: str) -> Iterator[str]:
        yield from _choice(f"{at}.action", self.action, CONTAMINATION)
        yield from _whole(f"{at}.ngram", self.ngram, 1)
        if not 0 <= self.share < 1:
            yield f"{at}.share is {self.share}; it must be at least 0 and below 1; e.g. 0.2"
