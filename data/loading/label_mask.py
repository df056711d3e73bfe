"""Context-only sources (`data.sources.NAME.loss: false`), whose labels do not count. Pure.

Their documents are in the plan like others; the loader masks their labels, so the setting changes
neither plan nor tokens.
"""

from typing import Any

import numpy as np

from ropewalk.conf.data import DataConfig
from ropewalk.data.loading.collate import IGNORE


def context_only_sources(data: DataConfig) -> list[str]:
    """Names of the sources whose labels do not count."""
    return [name for name, source in data.sources.items() if not source.loss]


def mask_labels(labels: np.ndarray, starts: np.ndarray, ends: np.ndarray, low: int) -> None:
    """Set the labels of pieces `[start, end)` (P,) to IGNORE, in place.

    `labels` begin at token `low` of the sequence.
    """
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        labels[max(start - low, 0) : max(end - low, 0)] = IGNORE


def add_to_ledger(ledger: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The ledger with `targets` corrected for the context-only sources `names`."""
    if not names:
        return ledger
    rows = {name: dict(row) for name, row in ledger["sources"].items()}
    for name in names:
        rows[name] |= {"targets": 0, "context_only": rows[name]["targets"]}
    plan = ledger["plan"] | {"targets": sum(row["targets"] for row in rows.values())}
    return ledger | {"sources": rows, "plan": plan}
