"""For run folders: nothing is synced, and a lock may be held by another process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from run_folders import HOLD

from ropewalk.conf.artifacts.locks import lock_of, lock_path


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline's writers sync each file, which a busy disk takes seconds for."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Any]:
    """Lets another process hold the lock of a folder until it is killed."""
    processes = []

    def hold(folder: Path) -> subprocess.Popen[str]:
        lock_of(folder)
        script = HOLD
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(lock_path(folder))],
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in processes:
        process.kill()
        process.wait()
