"""Which trial becomes the plan: the lowest, unless it was lower than the papers by one document's luck. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ropewalk.eval.calibrate.trial import Trial, best

LEAST = 4
"""Documents. On fewer, what was lowest says little of another one: on SmolLM2-135M a ramp chosen on one document was 0.02 nats
worse than YaRN's defaults on three others."""


@dataclass(frozen=True)
class Choice:
    trial: Trial
    lowest: Trial
    kept: str | None  # why the paper's method stands although another trial was lower


def choose(finished: Sequence[Trial], documents: Sequence[str]) -> Choice:
    """`documents`: that of each stretch, as the trials' `each` has them.

    A decision, not a claim: what it is worth is measured on other documents, with its interval.
    """
    lowest, paper = best(finished), best([t for t in finished if t.candidate.searcher == "paper"])
    if lowest.candidate.searcher == "paper":
        return Choice(lowest, lowest, None)
    head = f"trial {lowest.number} ({lowest.candidate.searcher}) was lower by {paper.value - lowest.value:.4f} nats"
    gains = by_document(np.array(paper.each) - np.array(lowest.each), documents)
    better = sum(gain > 0 for gain in gains)
    if len(gains) < LEAST:
        rule = (
            f"on {len(gains)} document(s); {LEAST} are needed to prefer it; raise calibrate.windows"
        )
        return Choice(paper, lowest, f"{head} {rule}")
    if better <= len(gains) / 2:
        return Choice(
            paper, lowest, f"{head} in the mean, and on {better} of {len(gains)} documents only"
        )
    return Choice(lowest, lowest, None)


def by_document(values: np.ndarray, documents: Sequence[str]) -> list[float]:
    """Means of the stretches of each document."""
    named = np.array(documents)
    return [float(values[named == name].mean()) for name in dict.fromkeys(documents)]
