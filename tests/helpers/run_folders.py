"""Run folders in many states, by the pipeline's own writers; for the tests of `ropewalk runs`."""

import json
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.records import signed, write_json
from ropewalk.launch.runs import listing
from ropewalk.launch.runs.reading import Row
from ropewalk.train.checkpoint import storage
from ropewalk.train.launcher import failure
from ropewalk.train.results import METRICS_FILE

COMMAND = "ropewalk run recipe=demo name=first data.sources.books.path=PATH"
HOLD = """
import sys, time, filelock
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""
LOOK = """
import fcntl, sys, time
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_SH)
print("held", flush=True)
time.sleep(0.05)
"""
CONTENT = {"train": {"steps": 40}, "inputs": {}}


def begin(runs: Path, name: str = "first", command: str = COMMAND) -> Path:
    """A run after its rope stage."""
    run = runs / name
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("name: first\ndata: {sources: {books: {path: ./my books}}}\n")
    write_json(run / "rope.json", {})
    write_json(run / "manifest.json", signed({"name": name, "command": command, "stages": {}}))
    return run


def finish(run: Path, *stages: str) -> None:
    for stage in stages:
        content = of_page(run) if stage == "report" else CONTENT
        manifest.run_stage(stage, content, run / stage, lambda _: {})


def of_page(run: Path) -> dict[str, Any]:
    """What the manifest of a page says of the results that stand."""
    results = {name: manifest.read(run / name) for name in ("data", "train", "eval")}
    return {"inputs": {name: result.fingerprint for name, result in results.items() if result}}


def line(step: int, **more: object) -> str:
    return json.dumps({"step": step, "loss": 3 - step / 100, "step_time_s": float(step), **more})


def train_to(run: Path, steps: int, folder: str = "train.tmp") -> Path:
    """A training of 40 steps that did `steps`."""
    temporary = manifest.workspace(run / "train", CONTENT, resumable=True)
    text = "".join(f"{line(step)}\n" for step in range(1, steps + 1))
    (temporary / METRICS_FILE).write_text(text)
    return temporary


def save(temporary: Path, step: int) -> None:
    """A complete checkpoint, as rank 0 publishes it."""
    name = storage.checkpoint_name(step)
    folder = temporary / "checkpoints" / f"{name}.tmp"
    folder.mkdir(parents=True)
    write_json(
        folder / "rank-0.json",
        {"asked": [], "files": {"model_states.pt": {"bytes": 1, "sha256": ""}}},
    )
    (folder / "model_states.pt").write_text("x")
    storage.publish(
        folder.parent, name, {"step": step, "world_size": 1, "zero_stage": 0, "content": {}}
    )


def end(temporary: Path, exit_code: int, error: str) -> None:
    note = {"rank": 3, "host": "node-b", "exit_code": exit_code, "error": error}
    failure.leave_note(note, temporary)


def only(runs: Path) -> Row:
    (row,) = listing.rows(str(runs))
    return row


def snapshot(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file and folder with its content and times, the locks beside runs too."""
    paths = [folder, *folder.rglob("*")]
    return {
        str(p): (p.lstat().st_mtime_ns, p.lstat().st_ino, p.read_bytes() if p.is_file() else b"")
        for p in paths
    }
