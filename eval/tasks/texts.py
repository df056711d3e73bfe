"""The texts of the language-modelling tasks: held-out documents, and the bytes of what is scored.

T tokens whose losses count
"""

import math
from collections.abc import Sequence

import numpy as np

from ropewalk.data.dataset import Window
from ropewalk.eval.requests import Text
from ropewalk.eval.tasks.task import EvalSuite, Measured, Sample


def long_documents(suite: EvalSuite, min_tokens: int, count: int) -> list[Window]:
    """The first `count` held-out documents of at least `min_tokens`, from the sources in turn."""
    return [text for text in suite.documents if len(text.ids) >= min_tokens][:count]


def too_short(suite: EvalSuite, min_tokens: int, key: str) -> str:
    """Why there is no document; `key`: the setting that asks for their length."""
    longest = max((len(text.ids) for text in suite.documents), default=0)
    return (
        f"no held-out document has {min_tokens:,} tokens (the longest has {longest:,}); add longer "
        f"documents, raise data.heldout_share or lower {key}"
    )


def prepended(suite: EvalSuite) -> str:
    """For rows: what stands before each window of the compatible protocols."""
    return "none" if suite.bos is None else f"BOS, id {suite.bos}"


def losses_of(measured: Measured) -> list[np.ndarray]:
    """Of each sample, (tokens,) float64."""
    return [np.asarray(result, np.float64) for result in measured.results]


def base_losses_of(measured: Measured) -> list[np.ndarray] | None:
    """Of the base for the same samples; None without one."""
    base = measured.base
    return None if base is None else [np.asarray(result, np.float64) for result in base]


def target_ids(sample: Sample) -> np.ndarray:
    """The tokens whose losses a sample has."""
    assert isinstance(sample.request, Text)
    return sample.request.ids[sample.request.first :]


def target_bytes(suite: EvalSuite, ids: np.ndarray) -> np.ndarray | None:
    """Bytes of each of these consecutive tokens of a text, (T,); none for an end token.

    None where they are not known.
    """
    if suite.count_bytes is None or not len(ids):
        return None
    after = int(ids[-1] == suite.boundary_tokens.end)
    counts = suite.count_bytes(ids[: len(ids) - after])
    return None if counts is None else np.pad(counts, (0, after))


def bits_per_byte(
    losses: Sequence[np.ndarray], counts: Sequence[np.ndarray | None]
) -> float | None:
    """Losses of texts over the bytes of their tokens; None where those of one are not known.

    `losses`, `counts`: of each text, the first tokens count where one is shorter.
    """
    nats, size = 0.0, 0
    for part, known in zip(losses, counts, strict=True):
        if known is None:
            return None
        nats, size = nats + float(part.sum()), size + int(known[: len(part)].sum())
    return nats / math.log(2) / size if size else None
