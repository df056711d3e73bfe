"""Whether far text is used: the loss when it is another document's, against the true text.

Positions, length and first tokens stay as they are; only the content before the last tokens is
swapped, for the text at the same place of another held-out document of the same source.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ropewalk.data.dataset import Window
from ropewalk.eval.measure.loss_rows import Row, mean_row, not_measurable
from ropewalk.eval.report.figures.curves import Curves, curve_figure
from ropewalk.eval.report.formats import signed
from ropewalk.eval.report.sentences import list_by_model, sentence
from ropewalk.eval.requests import Result, Text
from ropewalk.eval.tasks.task import (
    EvalSuite,
    Measured,
    ModelRows,
    Rows,
    Sample,
    Task,
    window_samples,
)

PROTOCOL = "swapped_gain"


class SwappedGain(Task):
    """No verdict: eval/measure/answers.py judges the last row."""

    name = "swapped_gain"
    title = "Far text swapped"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        """Each window that has a donor, as it is and swapped."""
        true = window_samples(suite)
        swapped = _swapped_samples(suite)
        return [part for n, sample in swapped for part in (true[n], sample)]

    def rows(self, measured: Measured) -> Rows:
        """By distance of the target from the seam, and the last row of all of them."""
        suite = measured.suite
        kept = kept_tokens(suite)
        if not measured.samples:
            facts = {"from": 0, "to": kept, "unit": "document", "protocol": PROTOCOL}
            return [not_measurable("gain", _reason(suite), **facts)]
        return [_row(measured, low, high) for low, high in [*bins(kept), (0, kept)]]

    def figure(self, rows: ModelRows, window: int | None) -> str | None:
        return curve_figure({name: part[:-1] for name, part in rows.items()}, CURVES)

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        gains = list_by_model(rows, lambda part: _gain_text(part[-1]))
        kept = next((part[-1]["to"] for part in rows.values()), 0)
        text = f"with another document's text before the last {kept:,} tokens their loss changes by"
        return sentence([f"{text} {gains}"] if gains else [])


CURVES = Curves(
    x="to",
    value="gain",
    x_label="distance from the seam, up to (tokens)",
    y_label="gain from the true text (nats)",
    prefix="swapped_gain",
    description="Loss with another document's far text minus loss with the true text",
    tokens=True,
    level=0,
)


def kept_tokens(suite: EvalSuite) -> int:
    return suite.config.swapped_gain.kept_tokens or suite.base_window


def bins(kept: int) -> list[tuple[int, int]]:
    """Distances from the seam, [low, high): the first eighth, then doubled up to `kept`."""
    edges = sorted({kept // 8, kept // 4, kept // 2, kept} - {0})
    return list(zip([0, *edges[:-1]], edges, strict=True))


def _swapped_samples(suite: EvalSuite) -> Iterator[tuple[int, Sample]]:
    """With the number of its window. None where nothing stands before the kept tokens."""
    seam = suite.length - kept_tokens(suite)
    if seam <= suite.boundary_tokens.before:
        return
    for number, window in enumerate(suite.windows):
        donor = donor_of(suite.windows, number)
        if donor is not None:
            ids = np.concatenate([donor.ids[:seam], window.ids[seam:]])
            facts = {"length": suite.length, "seam": seam, "donor": donor.document}
            name = f"swapped/{seam}/{number:03}"
            yield number, Sample(name, window.origin, Text(ids, seam), facts)


def donor_of(windows: Sequence[Window], number: int) -> Window | None:
    """The next window, in a circle, of another document of the same source; None without one."""
    window = windows[number]
    after = [*windows[number + 1 :], *windows[:number]]
    same = (w for w in after if w.source == window.source and w.document != window.document)
    return next(same, None)


def _reason(suite: EvalSuite) -> str:
    kept = kept_tokens(suite)
    if suite.length - kept <= suite.boundary_tokens.before:
        return (
            f"nothing stands before the last {kept:,} of {suite.length:,} tokens; raise "
            "eval.length or lower eval.swapped_gain.kept_tokens"
        )
    return (
        "no source has windows of two held-out documents; add longer documents, raise "
        "data.heldout_share or lower eval.length"
    )


def _row(measured: Measured, low: int, high: int) -> Row:
    suite, seam = measured.suite, measured.suite.length - kept_tokens(measured.suite)
    part = slice(low, high)
    true, swapped = _pairs(measured.results, seam, part)
    base = None
    if measured.base is not None:
        base = [b - a for a, b in zip(*_pairs(measured.base, seam, part), strict=True)]
    gains = [b - a for a, b in zip(true, swapped, strict=True)]
    units = [sample.unit for sample in measured.samples[::2]]
    facts: dict[str, Any] = {"from": low, "to": high}
    return {
        **facts,
        **mean_row(units, gains, base, suite.seed, "gain"),
        "nll": float(np.concatenate(true).mean()),
        "nll_swapped": float(np.concatenate(swapped).mean()),
        "tokens": sum(map(len, true)),
        "windows_without_donor": len(suite.windows) - len(true),
        "length": suite.length,
        "unit": "document",
        "protocol": PROTOCOL,
    }


def _pairs(
    results: Sequence[Result], seam: int, part: slice
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Losses of the kept tokens of each window, with true and with swapped text before them."""
    losses = [np.asarray(result, np.float64) for result in results]
    return [a[seam - 1 :][part] for a in losses[::2]], [b[part] for b in losses[1::2]]


def _gain_text(row: dict[str, Any]) -> str | None:
    if row.get("gain") is None:
        return None
    ends = "" if row.get("low") is None else f" [{signed(row['low'])}, {signed(row['high'])}]"
    return f"{signed(row['gain'])} nats{ends}"
