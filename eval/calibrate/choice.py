"""Which trial becomes the plan: the lowest, unless nothing shows that it is better than the papers on other text. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ropewalk.eval import statistics
from ropewalk.eval.calibrate.trial import Trial, best

LEAST = 4
"""Documents. On fewer, what was lowest says little of another one: on SmolLM2-135M a ramp chosen on one document was 0.02 nats
worse than YaRN's defaults on three others."""


@dataclass(frozen=True)
class Choice:
    trial: Trial
    lowest: Trial
    kept: str | None  # why the paper's method stands although another trial was lower


def choose(finished: Sequence[Trial], documents: Sequence[str], seed: int) -> Choice:
    """`documents`: that of each stretch, as the trials' `each` has them."""
    lowest, paper = best(finished), best([t for t in finished if t.candidate.searcher == "paper"])
    if lowest.candidate.searcher == "paper":
        return Choice(lowest, lowest, None)
    head = f"trial {lowest.number} ({lowest.candidate.searcher}) was lower by {paper.value - lowest.value:.4f} nats"
    count = len(set(documents))
    if count < LEAST:
        return Choice(
            paper, lowest, f"{head} on {count} document(s); {LEAST} are needed to prefer it; raise calibrate.windows"
        )
    difference = np.array(lowest.each)[:, None] - np.array(paper.each)[:, None]
    _, low, high = statistics.mean_with_interval(difference, statistics.resamples(documents, seed))
    if high >= 0:
        return Choice(paper, lowest, f"{head}, and the interval of the difference [{low:+.4f}, {high:+.4f}] holds zero")
    return Choice(lowest, lowest, None)
