"""Loss on short text, beside the base's on the same documents: what the longer window has cost."""

from collections.abc import Sequence

import numpy as np

from ropewalk.eval.measure.loss_rows import Row, mean_row, not_measurable
from ropewalk.eval.measure.statistics import PAIRED
from ropewalk.eval.report.formats import signed
from ropewalk.eval.requests import Text
from ropewalk.eval.tasks.task import (
    EvalSuite,
    Measured,
    ModelRows,
    Rows,
    Sample,
    Verdict,
    difference,
)

SHARES = (1, 2, 4)
"""The texts have the base's window over each of these, in turn."""
EDGES = (16, 4, 2, 1)
"""Position bins end at the base's window over each of these."""
PROTOCOL = "first tokens of held-out documents, up to 1, 1/2, 1/4 of the base's window in turn"


class ShortContext:
    name = "short_context"
    title = "Short text"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        return [
            Sample(f"short/{number:03}", origin, Text(ids), {"length": len(ids)})
            for number, (origin, ids) in enumerate(texts(suite))
        ]

    def rows(self, measured: Measured) -> Rows:
        """All positions, then bins of positions: a document counts in a bin by its tokens there."""
        window = measured.suite.base_window
        if not measured.samples:
            facts = {"part": "all", "from": 0, "to": window, "unit": "document"}
            return [not_measurable("nll", _reason(measured.suite), **facts, protocol=PROTOCOL)]
        ends = sorted({window // share for share in EDGES} - {0, 1})
        bins = list(zip([0, *ends[:-1]], ends, strict=True))
        whole = {"part": "all", "tolerance": measured.suite.config.gates.short_nats}
        return [
            {**whole, **_row(measured, 0, window)},
            *({"part": "positions", **_row(measured, low, high)} for low, high in bins),
        ]

    def verdicts(self, rows: ModelRows, window: int, length: int) -> list[Verdict]:
        row = rows["extended"][0]
        if row.get(PAIRED[0]) is None:
            return []
        bar = row["tolerance"]
        rule = f"extended against base on short held-out documents: below {bar:+g}"
        change = difference(row)
        return [Verdict("Short documents", change, bar, rule, "document", "nats", question=5)]

    def figure(self, rows: ModelRows, window: int | None) -> str | None:
        """None: the page shows a table."""
        return None

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        """The extended model's difference to the base over all positions."""
        row = (rows.get("extended") or [{}])[0]
        if any(row.get(key) is None for key in PAIRED):
            return None
        change, low, high = (signed(row[key]) for key in PAIRED)
        return (
            f"On {row['n']:,} short documents the extended model's loss differs from the base's by "
            f"{change} nats ({low} to {high}) per token."
        )


def texts(suite: EvalSuite) -> list[tuple[str, np.ndarray]]:
    """Documents and their first tokens (S,), laid out as in training. The shortest length is the
    least that a document must have."""
    lengths = [suite.base_window // share for share in SHARES]
    long_enough = [d for d in suite.documents if len(d.ids) >= max(lengths[-1], 2)]
    chosen = long_enough[: suite.config.short_context.documents]
    marks = suite.boundary_tokens
    laid_out = [
        marks.lay_out(np.asarray(document.ids, np.int64), 0, lengths[number % len(lengths)])
        for number, document in enumerate(chosen)
    ]
    return [(d.origin, ids.astype(np.int64)) for d, ids in zip(chosen, laid_out, strict=True)]


def _row(measured: Measured, low: int, high: int) -> Row:
    """Tokens at the positions [low, high)."""
    part = slice(max(low - 1, 0), high - 1)
    values = [np.asarray(result, np.float64)[part] for result in measured.results]
    base = measured.base and [np.asarray(result, np.float64)[part] for result in measured.base]
    units = [sample.unit for sample in measured.samples]
    row = mean_row(units, values, base or None, measured.suite.seed)
    tokens = sum(map(len, values))
    facts = {"from": low, "to": high, "tokens": tokens, "unit": "document"}
    return {**facts, **row, "protocol": PROTOCOL}


def _reason(suite: EvalSuite) -> str:
    return (
        f"no held-out document has {suite.base_window // SHARES[-1]:,} tokens; add longer "
        "documents or raise data.heldout_share"
    )
