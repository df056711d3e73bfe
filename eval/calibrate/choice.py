"""Choose the trial with the lowest loss, unless its lead over the published defaults rests on too
few documents. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ropewalk.eval.calibrate.trial import Trial, best

MIN_DOCUMENTS = 4
"""Documents that a preference needs. On fewer it does not carry over: on SmolLM2-135M a ramp chosen
on one document was 0.02 nats worse than YaRN's defaults on three others."""


@dataclass(frozen=True)
class Choice:
    trial: Trial
    lowest: Trial
    reason: str | None  # why the paper's method is chosen although another trial was lower


def choose(finished: Sequence[Trial], documents: Sequence[str]) -> Choice:
    """`documents`: the document of each window, in the order of the trials' `per_window`.

    The gain of the choice is measured on other documents, with its interval.
    """
    lowest = best(finished)
    paper = best([trial for trial in finished if trial.candidate.searcher == "paper"])
    if lowest.candidate.searcher == "paper":
        return Choice(lowest, lowest, None)
    gains = by_document(np.array(paper.per_window) - np.array(lowest.per_window), documents)
    better, lead = sum(gain > 0 for gain in gains), paper.value - lowest.value
    if len(gains) < MIN_DOCUMENTS:
        rule = (
            f"on {len(gains)} document(s); {MIN_DOCUMENTS} are needed to prefer it; "
            "raise calibrate.windows"
        )
    elif better <= len(gains) / 2:
        rule = f"in the mean, and on {better} of {len(gains)} documents only"
    else:
        return Choice(lowest, lowest, None)
    name = f"trial {lowest.number} ({lowest.candidate.searcher})"
    return Choice(paper, lowest, f"{name} was lower by {lead:.4f} nats {rule}")


def by_document(values: np.ndarray, documents: Sequence[str]) -> list[float]:
    """Mean of the windows of each document."""
    owners = np.array(documents)
    return [float(values[owners == name].mean()) for name in dict.fromkeys(documents)]
