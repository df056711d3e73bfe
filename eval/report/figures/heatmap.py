"""Accuracy by length and depth as an HTML table for each model: length across, depth down."""

from collections.abc import Mapping
from typing import Any

from ropewalk.eval.report import formats
from ropewalk.eval.report.figures.style import MODEL_TITLES, MODELS, Rows


def heat_maps(rows: Mapping[str, Rows], legend: str) -> str | None:
    """`rows` by model: length, depth, n, accuracy, low, high. None without any."""
    if not rows:
        return None
    grids = {name: _grid(rows.get(name, [])) for name in MODELS}
    template = formats.template("ropewalk.eval.report.figures", "heatmap.html.j2")
    return template.render(MODELS=MODELS, titles=MODEL_TITLES, grids=grids, legend=legend)


def _grid(rows: Rows) -> dict[str, Any]:
    """Lengths, depths, and the cell of each pair that was run."""
    tries = sorted({row["n"] for row in rows})
    return {
        "lengths": sorted({row["length"] for row in rows}),
        "depths": sorted({row["depth"] for row in rows}),
        "cells": {(row["length"], row["depth"]): row for row in rows},
        "n": " to ".join(f"{n:,}" for n in sorted({*tries[:1], *tries[-1:]})),
    }
