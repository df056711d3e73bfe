"""The score of a reply: which references stand in it, as RULER counts them."""

import re
from collections.abc import Sequence

import numpy as np

from ropewalk.eval.requests import Reply, Result
from ropewalk.eval.tasks.task import EvalSuite, Sample

CONTROL = re.compile(r"[\x00-\x1f]")


def score(text: str, references: Sequence[str], every: bool) -> float:
    """The share of the references in the text, in either case; not `every`: 1 for any of them.

    More words than the references are no fault.
    """
    text = CONTROL.sub("\n", text.strip()).strip().lower()
    hits = [reference.lower() in text for reference in references]
    return sum(hits) / len(hits) if every else float(any(hits))


def score_of(sample: Sample, text: str) -> float:
    """The score of a sample of eval/tasks/ruler.py for the text of a reply."""
    return score(text, sample.facts["references"], sample.facts["score"] == "all")


def reply_text(suite: EvalSuite, result: Result) -> str:
    """The text of the new tokens alone: an echoed prompt would hold the answer."""
    (reply,) = result
    assert isinstance(reply, Reply) and suite.decode is not None
    return suite.decode(reply.ids)


def chance(texts: Sequence[str], samples: Sequence[Sample]) -> float | None:
    """The mean score of each reply under the references of every other sample; None for one."""
    pairs = [
        score_of(sample, text)
        for i, text in enumerate(texts)
        for j, sample in enumerate(samples)
        if i != j
    ]
    return float(np.mean(pairs)) if pairs else None
