"""The process of a rank: its worker is imported with the variables that the command sent."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ropewalk.train.launcher.environment import FILE_VARIABLE

WORKER = """
import gc, os
seen_at_import = os.environ.get("HF_HOME"), gc.isenabled()
def run(folder):
    (folder / "seen").write_text(repr((*seen_at_import, gc.isenabled())))
"""
PROGRAM = "from ropewalk.train.launcher import rank_process\nrank_process.run('stand_in')\n"


def start(folder: Path, sent: Path) -> subprocess.CompletedProcess[str]:
    (folder / "stand_in.py").write_text(WORKER)
    env = {**os.environ, "PYTHONPATH": str(folder), FILE_VARIABLE: str(sent)}
    env.pop("HF_HOME", None)
    words = [sys.executable, "-c", PROGRAM, str(folder)]
    return subprocess.run(words, capture_output=True, text=True, env=env)


def test_the_worker_is_imported_with_what_was_sent(tmp_path: Path) -> None:
    sent = tmp_path / "environment.json"
    sent.write_text(json.dumps({"HF_HOME": "/data/hf"}))
    done = start(tmp_path, sent)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "seen").read_text() == repr(("/data/hf", False, True))


def test_a_disk_that_is_not_shared_is_told(tmp_path: Path) -> None:
    done = start(tmp_path, tmp_path / "gone.json")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "must be on a disk that all hosts of train.launcher.hostfile share" in done.stderr


@pytest.mark.parametrize("package", ["train", "eval", "launch.check"])
def test_every_rank_starts_so(tmp_path: Path, package: str) -> None:
    env = {**os.environ, FILE_VARIABLE: str(tmp_path / "gone.json")}
    words = [sys.executable, "-m", f"ropewalk.{package}", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    assert done.returncode == 1 and "gone.json cannot be read" in done.stderr
