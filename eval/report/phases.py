"""A run of several phases on the page: one curve over all of them, and a table row for each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ropewalk.eval.report.figures.style import Rows, column


def join_metrics(phases: Sequence[Rows]) -> list[dict[str, Any]]:
    """The metrics of all phases with steps counted through; each phase counts its own from 1."""
    joined: list[dict[str, Any]] = []
    for rows in phases:
        offset = joined[-1]["step"] if joined else 0
        joined += [{**row, "step": offset + row["step"]} for row in rows]
    return joined


def table(phases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a phase. `phases`: the name, `rope`, `ledger` and `metrics` of each."""
    return [_row(phase) for phase in phases]


def _row(phase: Mapping[str, Any]) -> dict[str, Any]:
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
