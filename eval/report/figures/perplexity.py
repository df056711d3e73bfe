"""Perplexity by length or window, drawn as the loss that it is the exponential of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from ropewalk.eval.report.figures.loss import Curves, loss_figure
from ropewalk.eval.report.figures.style import Drawing, Rows, column


def perplexity_figure(
    rows: Mapping[str, Rows], window: int | None, prefix: str, key: str, description: str
) -> Drawing | None:
    """Rows by column: `key` (tokens), perplexity, low, high. None without a value to draw.

    `window`: the base's, shaded. A null or infinite value is no point.
    """
    curves = {name: _as_losses(part, key) for name, part in rows.items()}
    drawn: Curves = {name: (column(part, key), part) for name, part in curves.items() if part}
    if not drawn:
        return None
    ends = [float(x[k]) for x, _ in drawn.values() for k in (0, -1)]
    span = (min(ends) / 1.12, max(ends) * 1.12)
    return loss_figure(
        drawn,
        window,
        span,
        prefix=prefix,
        x_label=f"{key} (tokens)",
        description=description,
        as_perplexity=True,
    )


def _as_losses(rows: Rows, key: str) -> Rows:
    points = [row for row in rows if key in row and _is_drawn(row.get("perplexity"))]
    return [{**row, "nll": math.log(row["perplexity"]), **_bounds(row)} for row in points]


def _bounds(row: Mapping[str, Any]) -> dict[str, float | None]:
    values = {key: row.get(key) for key in ("low", "high")}
    return {key: math.log(v) if _is_drawn(v) else None for key, v in values.items()}


def _is_drawn(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and 0 < value < math.inf


def by_key(rows: Sequence[Mapping[str, Any]], **facts: Any) -> list[Mapping[str, Any]]:
    """The rows with these facts."""
    return [row for row in rows if all(row.get(key) == value for key, value in facts.items())]
