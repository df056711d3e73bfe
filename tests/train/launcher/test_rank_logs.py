"""What a rank prints is in a log of its own, also when the rank is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

RANK = """
import os, signal, subprocess, sys
from ropewalk.train.launcher.rank_logs import copy_output
copy_output()
print("one")
subprocess.run(["echo", "two"])
print("three", file=sys.stderr, flush=True)
os.write(1, b"four\\n")
print("five", flush=True)
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[1] == "waits":
    signal.signal(signal.SIGTERM, lambda *_: print("saved", flush=True))
    signal.pause()
"""


def start(folder: Path, argument: str) -> "subprocess.Popen[str]":
    env = {**os.environ, "RANK": "3", "ROPEWALK_RANK_LOGS": str(folder / "logs of 1")}
    return subprocess.Popen(
        [sys.executable, "-u", "-c", RANK, argument],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def log(folder: Path) -> list[str]:
    return (folder / "logs of 1" / "rank-3.log").read_text().splitlines()


def test_a_killed_ranks_last_lines_are_kept_and_shown(tmp_path: Path) -> None:
    rank = start(tmp_path, "killed")
    shown, _ = rank.communicate(timeout=60)
    assert rank.returncode == -signal.SIGKILL
    assert shown.splitlines() == log(tmp_path) == ["one", "two", "three", "four", "five"]


def test_a_signal_to_every_process_of_the_job_ends_no_copying(tmp_path: Path) -> None:
    rank = start(tmp_path, "waits")
    until = time.monotonic() + 60
    while "five" not in (log(tmp_path) if (tmp_path / "logs of 1" / "rank-3.log").exists() else []):
        assert time.monotonic() < until
        time.sleep(0.05)
    copiers = subprocess.run(["pgrep", "-P", str(rank.pid)], capture_output=True, text=True)
    (copier,) = map(int, copiers.stdout.split())
    os.kill(copier, signal.SIGTERM)
    os.kill(rank.pid, signal.SIGTERM)
    rank.communicate(timeout=60)
    assert log(tmp_path)[-1] == "saved"


def test_attempts_of_one_log_follow_each_other_and_no_variable_means_no_log(tmp_path: Path) -> None:
    for _ in range(2):
        start(tmp_path, "ends").communicate(timeout=60)
    assert log(tmp_path).count("five") == 2
    env = {name: value for name, value in os.environ.items() if name != "ROPEWALK_RANK_LOGS"}
    words = [sys.executable, "-c", RANK, "ends"]
    subprocess.run(words, env={**env, "RANK": "0"}, cwd=tmp_path, check=True, capture_output=True)
    assert [path.name for path in tmp_path.iterdir()] == ["logs of 1"]
