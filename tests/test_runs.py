"""`ropewalk runs` beside a real training: while it runs, after SIGKILL and SIGTERM, and resumed by
the command that it gives."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import ENV, command, corpus

LONG = ["name=cut", "train.steps=40", "train.schedule.kind=constant"]
CLI = [sys.executable, "-m", "ropewalk.launch.cli"]


def look(work: Path) -> Any:
    """The row of the one run."""
    arguments = [*CLI, "runs", str(work / "runs"), "--json"]
    done = subprocess.run(arguments, env=ENV, cwd=work, capture_output=True, text=True, check=True)
    (row,) = json.loads(done.stdout)
    return row


def metrics(work: Path) -> list[Any]:
    """The finished steps, read by no code of ours."""
    file = work / "runs" / "cut" / "train.tmp" / "metrics.jsonl"
    text = file.read_text() if file.is_file() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def start(work: Path, arguments: list[str], steps: int) -> subprocess.Popen[bytes]:
    """The process, once its training has done `steps`."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(arguments, env=ENV, cwd=work, **quiet)  # type: ignore[call-overload]
    deadline = time.monotonic() + 400
    while len(metrics(work)) < steps:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    return process  # type: ignore[no-any-return]


def kill_with_ranks(process: subprocess.Popen[bytes]) -> None:
    """At once, ranks first: no one is left to write why."""
    everyone = psutil.Process(process.pid)
    for child in [*everyone.children(recursive=True), everyone]:
        child.suspend()
    for child in [*everyone.children(recursive=True), everyone]:
        os.kill(child.pid, signal.SIGKILL)
    process.wait(timeout=60)


def resuming(row: Any) -> list[str]:
    """The words that are to be typed, for the program of this checkout."""
    words = shlex.split(row["next"])
    assert words[0] == "ropewalk"
    return [*CLI, *words[1:]]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    corpus(tmp_path)
    return tmp_path


def test_a_training_from_its_start_over_a_kill_and_a_stop_to_its_end(work: Path) -> None:
    process = start(work, command(work, "train", *LONG), 5)
    before = metrics(work)
    row = look(work)
    after = metrics(work)
    assert (row["name"], row["state"], row["stage"], row["next"]) == ("cut", "running", "train", "")
    assert before[-1]["step"] <= row["step"] <= after[-1]["step"] and row["steps"] == 40
    assert row["loss"] == after[row["step"] - 1]["loss"]
    assert row["left_s"] == (40 - row["step"]) * row["step_time_s"]
    kill_with_ranks(process)

    last, row = metrics(work)[-1], look(work)
    assert (row["state"], row["stage"], row["left_s"]) == ("interrupted", "train", None)
    assert (row["step"], row["loss"]) == (last["step"], last["loss"])
    saved = work / "runs" / "cut" / "train.tmp" / "checkpoints"
    assert (
        row["checkpoint"] == (saved / "latest").read_text() and (saved / row["checkpoint"]).is_dir()
    )

    process = start(work, resuming(row), last["step"] + 1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=200) == 75
    last, row = metrics(work)[-1], look(work)
    assert (row["state"], row["step"], row["reason"]) == ("stopped", last["step"], "")

    subprocess.run(resuming(row), env=ENV, cwd=work, capture_output=True, check=True, timeout=400)
    row = look(work)
    assert (row["state"], row["stage"], row["step"], row["steps"]) == ("finished", "train", 40, 40)
    assert shlex.split(row["next"])[:2] == ["ropewalk", "eval"]
    checked = [*resuming(row), "--dry-run"]
    subprocess.run(checked, env=ENV, cwd=work, capture_output=True, check=True, timeout=200)
