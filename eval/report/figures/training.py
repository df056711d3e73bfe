"""Loss by position while training: of the batches, and of held-out text where the run validated."""

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ropewalk.eval.report.figures.style import (
    COLOURS,
    Rows,
    column,
    smooth,
    styled,
    thousands,
    ticks,
    to_svg,
)

SHADES = ("s0", "s2", "s3", "s4", "s1", "s5")


def by_position(metrics: Rows, width: int) -> str | None:
    """The loss of the farthest buckets of positions by step, held-out loss beside it. None where no step told either."""
    held_out = [
        {"step": row["step"], **row["validation"]} for row in metrics if row.get("validation")
    ]
    panels = [
        (title, column(rows, "step"), _buckets(rows, key), each)
        for title, rows, key, each in (
            (
                "loss of the batches",
                [r for r in metrics if r.get("loss_by_position")],
                "loss_by_position",
                width,
            ),
            ("held-out loss", held_out, "nll_by_position", 1),
        )
        if rows
    ]
    if not panels:
        return None
    with styled():
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        for axes, panel in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            _draw(axes, *panel)
        return to_svg(figure, "by-position", "Loss by position and step")


def _buckets(rows: Rows, key: str) -> dict[str, np.ndarray]:
    """The loss by step of as many buckets as there are shades, the farthest."""
    tables = [{(b["from"], b.get("to")): b["nll"] for b in row[key]} for row in rows]
    found = sorted({bucket for table in tables for bucket in table}, key=lambda bucket: bucket[0])[
        -len(SHADES) :
    ]
    return {
        _name(*bucket): np.array([t.get(bucket, math.nan) for t in tables], float)
        for bucket in found
    }


def _name(start: int, end: int | None) -> str:
    return f"from {start:,}" if end is None else f"{start:,} to {end:,}"


def _draw(
    axes: Axes, title: str, steps: np.ndarray, losses: dict[str, np.ndarray], width: int
) -> None:
    for shade, (name, values) in zip(SHADES, losses.items(), strict=False):
        marker = "o" if len(steps) < 12 else ""
        axes.plot(
            steps,
            smooth(values, width),
            color=COLOURS[shade],
            label=name,
            marker=marker,
            markersize=3,
        )
    axes.set_title(f"{title} (nats per token)")
    axes.set_xlabel("step")
    axes.legend(frameon=False, fontsize=9, title="position", title_fontsize=9)
    axes.yaxis.set_major_locator(ticks(4))
    axes.xaxis.set_major_locator(ticks(6, integer=True))
    thousands(axes.xaxis)


def reading(metrics: Rows) -> str | None:
    """Where held-out loss was lowest, and where it ended."""
    found: list[tuple[float, Any]] = [
        (row["validation"]["nll"], row["step"]) for row in metrics if row.get("validation")
    ]
    finite = [one for one in found if math.isfinite(one[0])]
    if not finite:
        return None
    (best, at), (last, end) = min(finite), found[-1]
    return f"Held-out loss was lowest after step {at:,} ({best:.3f}) and {last:.3f} after step {end:,}."
