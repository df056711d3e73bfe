"""`ropewalk train -m` on a tiny corpus: one run fails, the other is that of a command alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands import corpus, ropewalk

WORDS = ["train.steps=2", "train.schedule.warmup_steps=0", "train.schedule.kind=constant"]
SWEPT = ["-m", "name=s", "train.optimizer.lr=1e-3,1e30", "sweep.pool=2", *WORDS]

pytestmark = pytest.mark.slow
"""Minutes of trainings; test_runs.py and test_local.py hold the parts in CI."""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    corpus(folder)
    return folder


@pytest.fixture(scope="module")
def output(work: Path) -> str:
    """The second run's loss is nan in its second step, at which it stops."""
    printed: str = ropewalk(work, "train", *SWEPT, code=1)
    return printed


def record(work: Path) -> dict[str, Any]:
    text = (work / "runs" / "sweeps" / "s-lr" / "sweep.json").read_text()
    return {job["name"]: job for job in json.loads(text)["jobs"]}


def losses(run: Path) -> list[float]:
    lines = (run / "train" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_a_run_that_fails_is_told_and_stops_no_other(output: str, work: Path) -> None:
    jobs = record(work)
    assert {name: job["state"] for name, job in jobs.items()} == {
        "s-1e-3-data": "finished",
        "s-1e-3": "finished",
        "s-1e30": "failed",
    }
    assert "sweep s-lr: 1 of 2 runs done" in output
    assert "s-1e30  failed (exit code 1): rank 0" in output and "nan" in jobs["s-1e30"]["reason"]


def test_tokens_are_written_once(output: str, work: Path) -> None:
    logs = work / "runs" / "sweeps" / "s-lr" / "logs"
    written = {log.stem: "tokens of stdlib, shard 00000 of 1: done in" in log.read_text()
               for log in logs.iterdir()}  # fmt: skip
    assert written == {"s-1e-3-data": True, "s-1e-3": False, "s-1e30": False}


def test_a_run_of_a_sweep_has_the_losses_of_the_run_alone(output: str, work: Path) -> None:
    ropewalk(work, "train", "name=alone", *WORDS)
    alone = losses(work / "runs" / "alone")
    assert losses(work / "runs" / "s-1e-3") == alone and len(alone) == 2


def test_the_same_command_again_starts_only_what_is_not_done(output: str, work: Path) -> None:
    again = ropewalk(work, "train", *SWEPT, code=1)
    assert "1 of 2 runs are done before; skipped" in again
    jobs = record(work)
    attempts = {name: job["attempts"] for name, job in jobs.items()}
    assert attempts == {"s-1e-3-data": 1, "s-1e-3": 1, "s-1e30": 2}
    assert jobs["s-1e-3"]["state"] == "finished"
