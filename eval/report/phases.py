"""What the page shows of a run of several phases: one curve over all of them, and a line for each. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, Any]]


def joined(each: Sequence[Rows]) -> list[dict[str, Any]]:
    """The steps of all phases counted through; each phase counts its own from 1."""
    found: list[dict[str, Any]] = []
    for rows in each:
        past = found[-1]["step"] if found else 0
        found += [{**row, "step": past + row["step"]} for row in rows]
    return found


def table(names: Sequence[str], parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row a phase. `parts`: of each its `rope`, `ledger` and `metrics`."""
    found = []
    for name, part in zip(names, parts, strict=True):
        plan, rows = part["ledger"].get("plan") or {}, part["metrics"]
        losses = [
            row["loss"]
            for row in rows
            if row.get("loss") is not None and math.isfinite(row["loss"])
        ]
        found.append(
            {
                "name": name,
                "window": part["rope"].get("max_position_embeddings"),
                **{key: plan.get(key) for key in ("seq_len", "sequences", "tokens", "fill")},
                "steps": len(rows),
                "trained": sum(row.get("tokens") or 0 for row in rows),
                "lr": max((row["lr"] for row in rows if row.get("lr") is not None), default=None),
                "first": losses[0] if losses else None,
                "last": losses[-1] if losses else None,
            }
        )
    return found
