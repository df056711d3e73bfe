"""Settings of cleaning: duplicates and contamination, before the sources are mixed."""

from collections.abc import Iterator
from dataclasses import dataclass

from ropewalk.conf.rules import setting


@dataclass(kw_only=True)
class DuplicatesConfig:
    """Training documents that repeat an earlier one, in the order of the sources and then of the
    documents."""

    exact: str = setting("report", one_of=("report", "remove"))
    """Documents of the same tokens: report (counted in the ledger) or remove (the first stays in
    the mixture)."""
    near: str = setting("off", one_of=("off", "report", "remove"))
    """Documents that are alike, by MinHash: off, report or remove. Needs `pip install
    'ropewalk[dedup]'`."""
    threshold: float = setting(0.8, at_least=0.3, at_most=1, way_out="e.g. 0.8")
    """Share of the two documents' n-grams that must be common to both (estimated Jaccard
    similarity). A changed word costs up to `ngram` n-grams: 5% of the words changed here and
    there leave 0.63, in one passage 0.9."""
    ngram: int = setting(5, at_least=1)
    """Tokens of an n-gram."""
    permutations: int = setting(128, at_least=16)
    """Numbers in a document's signature; the estimate's standard error is at most 0.5 /
    sqrt(permutations)."""

    def problems(self, prefix: str) -> Iterator[str]:
        if self.near == "remove" and self.exact == "report":
            yield (
                f"{prefix}near is remove; exact copies must then be removed too; set "
                f"{prefix}exact=remove"
            )


@dataclass(kw_only=True)
class ContaminationConfig:
    """Text that training documents share with the held-out documents that eval reads."""

    action: str = setting("report", one_of=("off", "report", "remove", "error"))
    """off; report (in the ledger); remove (contaminated training documents leave the mixture);
    error (refuse)."""
    ngram: int = setting(32, at_least=1)
    """Tokens in a row that must be the same to count."""
    share: float = setting(0.2, at_least=0, below=1, way_out="e.g. 0.2")
    """A training document is contaminated, and a held-out one dirty, when the other side has more
    than this share of its n-grams. Llama 2 (arXiv 2307.09288, A.6) calls text clean below it."""
