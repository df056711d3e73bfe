"""A sweep in `ropewalk runs`."""

import os
from pathlib import Path

import pytest
import run_folders
from filelock import FileLock

from ropewalk.launch.runs import listing
from ropewalk.launch.sweep import record
from ropewalk.launch.sweep.jobs import Job, Outcome
from ropewalk.launch.sweep.record import SweepRecord

COMMAND = "ropewalk run -m recipe=demo rope=pi,ntk"


@pytest.fixture
def sweep(tmp_path: Path) -> SweepRecord:
    """Two runs and the data that they share, which are made."""
    folder = tmp_path / "sweeps" / "demo-rope"
    folder.mkdir(parents=True)
    jobs = [(Job("demo-pi-data", (), "data"), "demo-pi")]
    jobs += [(Job(name, ("recipe=demo",)), name) for name in ("demo-pi", "demo-ntk")]
    entry = record.new(folder, "run", COMMAND, jobs, ["demo-pi", "demo-ntk"])
    entry.take(Outcome(jobs[0][0], 0, 1.0))
    run_folders.begin(tmp_path, "demo-pi")
    return entry


def row(tmp_path: Path) -> listing.Row:
    rows = {row["name"]: row for row in listing.rows(str(tmp_path))}
    assert set(rows) == {"demo-pi", "sweeps/demo-rope"}
    return rows["sweeps/demo-rope"]


def test_a_sweep_is_a_row_whose_steps_are_its_runs(tmp_path: Path, sweep: SweepRecord) -> None:
    sweep.take(Outcome(Job("demo-pi", ()), 3, 60.0))
    found = row(tmp_path)
    assert (found["state"], found["step"], found["steps"]) == ("interrupted", 1, 2)
    assert found["next"] == COMMAND
    text = listing.as_text(str(tmp_path), listing.rows(str(tmp_path)))
    assert "sweeps/demo-rope" in text and f"next: {COMMAND}" in text


def test_failed_runs_are_named(tmp_path: Path, sweep: SweepRecord) -> None:
    sweep.take(Outcome(Job("demo-pi", ()), 0, 60.0))
    sweep.take(Outcome(Job("demo-ntk", ()), -9, 60.0))
    found = row(tmp_path)
    assert (found["state"], found["reason"]) == ("failed", "1 failed: demo-ntk")


def test_a_sweep_whose_command_is_at_work_is_running(tmp_path: Path, sweep: SweepRecord) -> None:
    with FileLock(sweep.folder.with_name(".demo-rope.lock")):
        assert row(tmp_path)["state"] == "running"


def test_a_finished_sweep_has_its_page(tmp_path: Path, sweep: SweepRecord) -> None:
    for name in ("demo-pi", "demo-ntk"):
        sweep.take(Outcome(Job(name, ()), 0, 60.0))
    (sweep.folder / "index.html").write_text("")
    sweep.comparison = "index.html"
    sweep.write()
    found = row(tmp_path)
    assert (found["state"], found["next"]) == ("finished", "")
    assert found["report"] == os.fspath(sweep.folder / "index.html")


def test_a_folder_that_is_no_sweep_is_broken(tmp_path: Path, sweep: SweepRecord) -> None:
    (sweep.folder / "sweep.json").write_text("{}")
    assert row(tmp_path)["state"] == "broken"
