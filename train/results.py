"""What a finished training leaves in its folder, and the record that its ranks write last."""

from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.records import (
    DIGEST,
    read_json,
    read_signed,
    remove,
    signed,
    write_json,
)
from ropewalk.conf.artifacts.verify import digests_of, find_damage
from ropewalk.conf.log import log

METRICS_FILE = "metrics.jsonl"
DONE = "done.json"
RESULTS = ("model", "adapter", METRICS_FILE)
"""Beside them lie checkpoints, which are verified when they are read, and files of dashboards."""


def write_done(folder: Path, facts: dict[str, Any]) -> None:
    """Rank 0, at the end: the facts of the stage's manifest, and the digests of the results."""
    write_json(folder / DONE, signed({**facts, "files": digests_of(folder, RESULTS)}))


def is_done(folder: Path) -> bool:
    """Whether the ranks are done and their results undamaged; a damaged record is removed, and the
    ranks then repeat their end from the last checkpoint."""
    record = read_signed(folder / DONE)
    if record is None and not (folder / DONE).exists():
        return False
    damage = f"{DONE} is damaged"
    if record is not None:
        damage = find_damage(folder, record["files"])
    if damage:
        log.info(f"{folder}: {damage}; training ends again from its last checkpoint")
        remove(folder / DONE)
    return not damage


def take_facts(folder: Path) -> dict[str, Any]:
    """The facts of the record, which is removed: the stage's manifest takes its place."""
    record = read_json(folder / DONE)
    remove(folder / DONE)
    return {key: value for key, value in record.items() if key not in ("files", DIGEST)}
