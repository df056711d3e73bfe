"""Curves of the training by step, loss by position, and the phases of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ropewalk.eval.report.figures.style import (
    COLOURS,
    SHADES,
    Kwargs,
    Rows,
    column,
    styled_figure,
    thousands,
    ticks,
    to_svg,
)
from ropewalk.eval.report.sentences import sentence

if TYPE_CHECKING:
    from matplotlib.axes import Axes


PANELS = {
    "loss": "loss (nats per token)",
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_s": "tokens per second",
}


def curves(metrics: Rows, width: int) -> str | None:
    """Loss, learning rate, gradient norm and tokens per second by step. None without steps."""
    if not metrics:
        return None
    steps = column(metrics, "step")
    with styled_figure(9, 5) as figure:
        panels = figure.subplots(-(-len(PANELS) // 2), 2, sharex=True)
        for axes, (key, title) in zip(panels.flat, PANELS.items(), strict=False):
            _draw_steps(axes, steps, column(metrics, key), 1 if key == "lr" else width)
            axes.set_title(title)
        for axes in panels.flat[len(PANELS) :]:
            axes.set_visible(False)
        for axes in panels[-1]:
            axes.set_xlabel("step")
        description = "Loss, learning rate, gradient norm and throughput by step"
        return to_svg(figure, "training", description)


def _draw_steps(axes: Axes, steps: np.ndarray, values: np.ndarray, width: int) -> None:
    """Each value as a thin line; above a `width` of 1 also their running mean as a thick one."""
    colour, marker = COLOURS["extended"], "o" if len(steps) < 3 else ""
    thin: Kwargs = {"linewidth": 0.8, "alpha": 0.45} if width > 1 else {}
    axes.plot(steps, values, color=colour, marker=marker, **thin)
    if width > 1:
        axes.plot(steps, smooth(values, width), color=colour)
    _step_ticks(axes)
    thousands(axes.yaxis)


def _step_ticks(axes: Axes) -> None:
    axes.yaxis.set_major_locator(ticks(4))
    axes.xaxis.set_major_locator(ticks(6, integer=True))
    thousands(axes.xaxis)


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Centred mean over `width` values, shorter at the ends; nan values are left out."""
    finite, kernel = np.isfinite(values), np.ones(min(width, len(values)))
    total = np.convolve(np.where(finite, values, 0.0), kernel, "same")
    count = np.convolve(finite.astype(float), kernel, "same")
    return np.divide(total, count, out=np.full_like(total, math.nan), where=count > 0.5)


def loss_reading(metrics: Rows, width: int) -> str | None:
    losses = column(metrics, "loss")
    losses = losses[np.isfinite(losses)]
    if not len(losses):
        return None
    first, last = losses[:width].mean(), losses[-width:].mean()
    over = "the loss of the first and the last step is"
    if width > 1:
        over = f"the mean loss of the first and the last {width} steps is"
    clauses = [f"{over} {first:.3f} and {last:.3f}"]
    if missing := len(metrics) - len(losses):
        clauses.append(f"{missing:,} steps have no finite loss")
    return sentence(clauses)


def by_position(metrics: Rows, width: int) -> str | None:
    """Loss by step of the farthest position buckets, of batches and held-out text. None without."""
    trained = [row for row in metrics if row.get("loss_by_position")]
    validated = [row for row in metrics if "nll_by_position" in row.get("validation", {})]
    held_out = [{"step": row["step"], **row["validation"]} for row in validated]
    panels: list[tuple[str, Rows, str, int]] = [
        ("loss of the batches", trained, "loss_by_position", width),
        ("held-out loss", held_out, "nll_by_position", 1),
    ]
    panels = [panel for panel in panels if panel[1]]
    if not panels:
        return None
    with styled_figure(9, 3.4) as figure:
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, rows, key, smoothing) in zip(grid, panels, strict=True):
            _draw_buckets(axes, column(rows, "step"), _buckets(rows, key), smoothing)
            axes.set_title(f"{title} (nats per token)")
        return to_svg(figure, "by-position", "Loss by position and step")


def _buckets(rows: Rows, key: str) -> dict[str, np.ndarray]:
    """Loss by step of the farthest buckets, as many as there are shades."""
    tables = [{(b["from"], b.get("to")): b["nll"] for b in row[key]} for row in rows]
    buckets = sorted({bucket for table in tables for bucket in table}, key=lambda b: b[0])
    return {
        _name(*bucket): np.array([table.get(bucket, math.nan) for table in tables], float)
        for bucket in buckets[-len(SHADES) :]
    }


def _name(start: int, end: int | None) -> str:
    return f"from {start:,}" if end is None else f"{start:,} to {end:,}"


def _draw_buckets(axes: Axes, steps: np.ndarray, losses: dict[str, np.ndarray], width: int) -> None:
    style: Kwargs = {"marker": "o" if len(steps) < 12 else "", "markersize": 3}
    for shade, (name, values) in zip(SHADES, losses.items(), strict=False):
        axes.plot(steps, smooth(values, width), color=COLOURS[shade], label=name, **style)
    axes.set_xlabel("step")
    axes.legend(title="position", title_fontsize=9)
    _step_ticks(axes)


def reading(metrics: Rows) -> str | None:
    """Where held-out loss was lowest, where it ended, and how many values were found at the end."""
    return " ".join(filter(None, [_loss_reading(metrics), _retrieval_reading(metrics)])) or None


def _retrieval_reading(metrics: Rows) -> str | None:
    """The share of JSON values found by their keys at the first and the last validation."""
    rows = [row for row in metrics if "json_kv" in row.get("validation", {})]
    if not rows:
        return None
    first, last = (row["validation"]["json_kv"] for row in (rows[0], rows[-1]))
    text = (
        f"Of {last['n']:,} values of JSON objects of up to {last['length']:,} tokens, asked for by "
        f"their keys, {last['accuracy']:.0%} (95% {last['low']:.0%} to {last['high']:.0%}, over "
        f"{last['haystacks']:,} objects) were found after step {rows[-1]['step']:,}"
    )
    if len(rows) > 1:
        text += f", {first['accuracy']:.0%} after step {rows[0]['step']:,}"
    return text + "."


def _loss_reading(metrics: Rows) -> str | None:
    rows = [row for row in metrics if "nll" in row.get("validation", {})]
    losses: list[tuple[float, int]] = [(row["validation"]["nll"], row["step"]) for row in rows]
    finite = [(loss, step) for loss, step in losses if math.isfinite(loss)]
    if not finite:
        return None
    (lowest, lowest_step), (last, last_step) = min(finite), losses[-1]
    return (
        f"Held-out loss was lowest after step {lowest_step:,} ({lowest:.3f}) and {last:.3f} after "
        f"step {last_step:,}."
    )


def join_metrics(phases: Sequence[Rows]) -> list[dict[str, Any]]:
    """The metrics of all phases with steps counted through; each phase counts its own from 1."""
    joined: list[dict[str, Any]] = []
    for rows in phases:
        offset = joined[-1]["step"] if joined else 0
        joined += [{**row, "step": offset + row["step"]} for row in rows]
    return joined


def phase_row(phase: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table of phases. `phase`: its name, `rope`, `ledger` and `metrics`."""
    plan, rows = phase["ledger"].get("plan") or {}, phase["metrics"]
    losses = column(rows, "loss")
    losses = losses[np.isfinite(losses)].tolist()
    return {
        "name": phase["name"],
        "window": phase["rope"].get("max_position_embeddings"),
        **{key: plan.get(key) for key in ("seq_len", "sequences", "tokens", "fill")},
        "steps": len(rows),
        "trained": sum(row.get("tokens") or 0 for row in rows),
        "lr": max((row["lr"] for row in rows if row.get("lr") is not None), default=None),
        "first": losses[0] if losses else None,
        "last": losses[-1] if losses else None,
    }
