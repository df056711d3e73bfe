"""The launcher of one machine's ranks: their environment is DeepSpeed's, and a failure ends all."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from ropewalk.train.launcher.command import world_info

OURS, DEEPSPEEDS = "ropewalk.train.launcher.node", "deepspeed.launcher.launch"
SHOW = """
import json, os, sys
from pathlib import Path
Path(sys.argv[1], os.environ["RANK"]).write_text(json.dumps([dict(os.environ), sys.argv[2:]]))
"""
# rank 0 starts a process that ignores SIGTERM, and waits; rank 1 ends by `sys.argv[2]`
FAIL = """
import os, signal, subprocess, sys, time
from pathlib import Path
child = Path(sys.argv[1], "child")
if os.environ["RANK"] == "0":
    program = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: None); time.sleep(60)"
    child.with_suffix(".new").write_text(str(subprocess.Popen([sys.executable, "-c", program]).pid))
    child.with_suffix(".new").rename(child)
    time.sleep(60)
while not child.exists():
    time.sleep(0.02)
time.sleep(0.5)
code = int(sys.argv[2])
os.kill(os.getpid(), -code) if code < 0 else sys.exit(code)
"""


def start(
    launcher: str, folder: Path, program: str, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.Popen[Any]:
    (folder / "rank_program.py").write_text(program)
    command = [sys.executable, "-m", launcher, "--world_info", world_info(2)]
    command += ["--master_addr", "127.0.0.1", "--master_port", "29999"]
    command += ["--log_level", "error", "--no_local_rank", "--module", "rank_program"]
    env = {**os.environ, "PYTHONPATH": str(folder), **(env or {})}
    return subprocess.Popen([*command, str(folder), *arguments], env=env)


@pytest.mark.parametrize("visible", [None, "5,3,4"])
def test_ranks_find_the_environment_of_deepspeeds_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None
) -> None:
    # DeepSpeed sets it wherever it is imported: in its launcher, and in each of our ranks
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    shown = []
    for launcher in (OURS, DEEPSPEEDS):
        folder = tmp_path / launcher
        folder.mkdir()
        assert start(launcher, folder, SHOW, "--flag", "x").wait() == 0
        shown.append([json.loads((folder / rank).read_text()) for rank in "01"])
        for env, arguments in shown[-1]:
            env.pop("_MLFLOW_TELEMETRY_SESSION_ID", None)  # set by whatever imports mlflow
            assert env.pop("PYTHONPATH") and arguments == ["--flag", "x"]
            assert env.get("CUDA_VISIBLE_DEVICES") == ("0,1" if visible is None else "5,3")
    assert shown[0] == shown[1]


@pytest.mark.parametrize("code", [2, 75, -9])
def test_the_first_failure_ends_the_other_ranks_and_their_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """In the grace that is set here; the exit code is the failed rank's."""
    (tmp_path / "quick.py").write_text(
        "from ropewalk.train.launcher import node\nnode.GRACE_S = 0.5\nnode.main()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    started = time.monotonic()
    assert start("quick", tmp_path, FAIL, str(code)).wait() == (code if code > 0 else 256 + code)
    assert time.monotonic() - started < 20
    pid = int((tmp_path / "child").read_text())
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_signal_to_the_launcher_is_left_to_the_ranks(tmp_path: Path) -> None:
    wait = "import sys, time, pathlib\npathlib.Path(sys.argv[1], 'up').touch()\ntime.sleep(2)\n"
    process = start(OURS, tmp_path, wait)
    while not (tmp_path / "up").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0
