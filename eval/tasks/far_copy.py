"""Loss of tokens that can be copied from far back, beside those that can be copied from near.

A token is a copy where the k tokens before it stood in the document earlier, and the last time
were followed by the same token (after Sun et al. 2021, arXiv 2109.09115). Only ids decide: the set
is the same for every model, and no outcome chooses it.
"""

from collections.abc import Sequence

import numpy as np

from ropewalk.eval.measure.loss_rows import Row, mean_row, not_measurable
from ropewalk.eval.measure.statistics import doublings
from ropewalk.eval.report.figures.curves import Curves, curve_figure
from ropewalk.eval.report.formats import fixed
from ropewalk.eval.report.sentences import list_by_model, sentence
from ropewalk.eval.requests import Text
from ropewalk.eval.tasks.task import (
    EvalSuite,
    Measured,
    ModelRows,
    Rows,
    Sample,
    Task,
    window_samples,
)
from ropewalk.eval.tasks.texts import base_losses_of, losses_of

PROTOCOL = "far_copy"


class FarCopy(Task):
    """No verdict: near and far copies are other tokens of other texts."""

    name = "far_copy"
    title = "Copies from far back"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        return window_samples(suite)

    def rows(self, measured: Measured) -> Rows:
        """By distance; `kind` says whether a bin is beyond `far`, or a control within it."""
        suite, k = measured.suite, measured.suite.config.far_copy.k
        texts = [s.request for s in measured.samples if isinstance(s.request, Text)]
        distances = [copy_distances(text.ids, k) for text in texts]
        return [_row(measured, distances, low, high) for low, high in bins(suite)]

    def figure(self, rows: ModelRows, window: int | None) -> str | None:
        return curve_figure(rows, CURVES)

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        far = list_by_model(rows, lambda part: _text(part, "far"))
        near = list_by_model(rows, lambda part: _text(part, "near"))
        text = f"the loss of tokens copied from far back is {far}"
        clauses = {text: far, f"from near, {near}": near}
        return sentence(clause for clause, values in clauses.items() if values)


CURVES = Curves(
    x="to",
    value="nll",
    x_label="distance of the last sight, up to (tokens)",
    y_label="nats per token",
    prefix="far_copy",
    description="Loss of copied tokens by the distance that they are copied from",
    tokens=True,
)


def far_distance(suite: EvalSuite) -> int:
    return suite.config.far_copy.far or suite.base_window


def bins(suite: EvalSuite) -> list[tuple[int, int]]:
    """Distances, (low, high]: up to a quarter of `far`, up to it, then doubled up to the length."""
    far = far_distance(suite)
    beyond = doublings(far, suite.length)
    edges = [0, far // 4, *beyond] if far // 4 else [0, *beyond]
    return list(zip(edges[:-1], edges[1:], strict=True))


def copy_distances(ids: np.ndarray, k: int) -> np.ndarray:
    """Of each token, how far back its k-gram stood last, where the same token followed: (S,).

    Zero for a token that is no copy.
    """
    distances = np.zeros(len(ids), np.int64)
    width, text = 8 * k, np.ascontiguousarray(ids, np.int64).tobytes()
    last_place: dict[bytes, int] = {}
    for place in range(k, len(ids)):
        gram = text[8 * place - width : 8 * place]
        earlier = last_place.get(gram)
        if earlier is not None and ids[earlier] == ids[place]:
            distances[place] = place - earlier
        last_place[gram] = place
    return distances


def _row(measured: Measured, distances: Sequence[np.ndarray], low: int, high: int) -> Row:
    suite = measured.suite
    masks = [(low < part[1:]) & (part[1:] <= high) for part in distances]
    kind = "far" if low >= far_distance(suite) else "near"
    facts = {"kind": kind, "from": low, "to": high, "k": suite.config.far_copy.k}
    shared = {"unit": "document", "protocol": PROTOCOL}
    values = _masked(losses_of(measured), masks)
    if not any(map(len, values)):
        reason = f"no token is copied from {low:,} to {high:,} tokens back"
        return not_measurable("nll", reason, **facts) | shared
    base = base_losses_of(measured)
    of_base = None if base is None else _masked(base, masks)
    units = [sample.unit for sample in measured.samples]
    row = mean_row(units, values, of_base, suite.seed)
    return {**facts, **row, "tokens": sum(map(len, values)), **shared}


def _masked(losses: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [part[mask] for part, mask in zip(losses, masks, strict=True)]


def _text(rows: Rows, kind: str) -> str | None:
    """Mean loss over the bins of a kind."""
    bins = [row for row in rows if row["kind"] == kind and row.get("nll") is not None]
    tokens = sum(row["tokens"] for row in bins)
    return fixed(sum(row["nll"] * row["tokens"] for row in bins) / tokens) if tokens else None
