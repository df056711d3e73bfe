"""Sources whose tokens are read as context, and teach nothing (`data.sources.NAME.loss: false`). Pure.

Their documents stand in the plan like others, so who is silent decides neither plan nor tokens; the reader takes their labels away.
"""

from typing import Any

import numpy as np

from ropewalk.conf.data import DataConfig
from ropewalk.data.loading.collate import IGNORE


def context_only_sources(data: DataConfig) -> list[str]:
    """Names of the sources that teach nothing."""
    return [name for name, source in data.sources.items() if not source.loss]


def mask_labels(labels: np.ndarray, starts: np.ndarray, ends: np.ndarray, low: int) -> None:
    """Take the labels of pieces `[start, end)` of a sequence, (P,) places each, out of a stretch that begins at `low`; in place."""
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        labels[max(start - low, 0) : max(end - low, 0)] = IGNORE


def add_to_ledger(ledger: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The ledger with the labels that count where some teach nothing: `targets` of each source and of the plan."""
    if not names:
        return ledger
    rows = {name: dict(row) for name, row in ledger["sources"].items()}
    for name in names:
        rows[name] |= {"targets": 0, "context_only": rows[name]["targets"]}
    return ledger | {
        "sources": rows,
        "plan": ledger["plan"] | {"targets": sum(row["targets"] for row in rows.values())},
    }
