"""What a machine lacks is told before a rank starts: seeded on real mounts, and on facts."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ropewalk.conf.artifacts.free_space import Need
from ropewalk.launch.check import shared_folder
from ropewalk.launch.check.equal_hosts import equal_lines
from ropewalk.launch.check.facts import HostFacts
from ropewalk.launch.check.host import HostNeeds, disk_line, gpu_line, host_lines
from ropewalk.launch.check.line import FAIL, PASS, failed
from ropewalk.launch.check.shared_folder import shared_folder_lines
from ropewalk.launch.check.together import Ranks

GIB = 1 << 30
FACTS = HostFacts("a", 0, {"torch": "2.14.1"}, 8 * GIB, 65536, 1 << 60, 64 * GIB, 32 * GIB)
NEEDS = HostNeeds(ranks=4, world_size=8, uses_gpus=True, memory=16 * GIB, hosts=2)


def test_a_machine_that_has_everything_passes() -> None:
    assert not failed(host_lines(FACTS, NEEDS))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"shm_free": 16 << 20}, "/dev/shm"),
        ({"open_files": 256}, "open files"),
        ({"locked_bytes": 65536}, "locked memory"),
        ({"memory_free": 15 * GIB}, "host memory"),
    ],
)
@pytest.mark.parametrize("uses_gpus", [True, False])
def test_what_a_machine_lacks(changes: dict[str, int], name: str, uses_gpus: bool) -> None:
    lines = host_lines(replace(FACTS, **changes), replace(NEEDS, uses_gpus=uses_gpus), " on b")
    expected = [] if name == "locked memory" and not uses_gpus else [f"{name} on b"]
    assert failed(lines) == expected
    assert all(line.way_out for line in lines if line.status == FAIL)


def test_a_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    needs = [
        Need("runs_dir", tmp_path / "runs", part, 3 * GIB) for part in ("checkpoints", "the model")
    ]
    for free, status in ((7 * GIB, PASS), (5 * GIB, FAIL)):
        monkeypatch.setattr(
            shutil, "disk_usage", lambda _, free=free: shutil._ntuple_diskusage(8 * GIB, 0, free)
        )  # type: ignore[attr-defined]
        line = disk_line(needs)
        assert (line.name, line.status) == ("disk", status)
    assert "checkpoints 3.0 GiB and the model 3.0 GiB" in line.way_out


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"other processes": 1}, "1 other processes"),
        ({"memory errors": 2}, "2 memory errors"),
        ({"throttled": ["heat"]}, "slowed by heat"),
    ],
)
def test_the_state_of_a_gpu(state: dict[str, Any], told: str) -> None:
    good = {"name": "H100", "bytes": 80 * GIB, "driver": "580", "other processes": 0}
    good |= {"throttled": [], "memory errors": 0}
    assert gpu_line(replace(FACTS, gpu=good)).status == PASS
    line = gpu_line(replace(FACTS, gpu=good | state))
    assert line.status == FAIL and told in line.value


def test_ranks_that_differ() -> None:
    gpu = {"name": "H100", "bytes": 80 * GIB, "driver": "580"}
    ranks = [replace(FACTS, rank=n, gpu=gpu, clock=100.0 + n) for n in range(4)]
    assert not failed(equal_lines(ranks))
    other = replace(ranks[3], host="b", versions={"torch": "2.13.0"}, clock=200.0)
    other = replace(other, gpu=gpu | {"driver": "570"})
    versions, devices, clocks = equal_lines([*ranks[:3], other])
    assert {versions.status, devices.status, clocks.status} == {FAIL}
    assert versions.value == "torch is 2.14.1 on ranks 0, 1, 2 (a) and 2.13.0 on rank 3 (b)"
    assert "driver 570 on rank 3 (b)" in devices.value
    assert "100.00 s" in clocks.value and "b is ahead of a" in clocks.value


def test_a_folder_of_one_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not failed(shared_folder_lines(tmp_path / "good", Ranks()))
    monkeypatch.setattr(shared_folder, "_takes", lambda lock: True)
    assert failed(shared_folder_lines(tmp_path / "no locks", Ranks())) == ["shared folder, locks"]
    (tmp_path / "file").touch()
    (line,) = shared_folder_lines(tmp_path / "file" / "below", Ranks())
    assert line.status == FAIL and line.way_out


def _may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    words = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(words, capture_output=True).returncode == 0


needs_mounts = pytest.mark.skipif(not _may_mount(), reason="this process may not mount anything")


def _failed_with(mounts: str, folder: Path, *words: str) -> tuple[list[str], dict[str, Any]]:
    """The lines of the command in a mount namespace of its own, and the names of the bad ones.

    `mounts`: shell commands, where RUNS is the folder of the runs.
    """
    runs = folder / "runs"
    runs.mkdir()
    settings = " ".join([f"recipe=demo runs_dir={runs} cache_dir={folder / 'cache'}", *words])
    command = f"{sys.executable} -m ropewalk.launch.cli check --json {settings}"
    script = f"{mounts.replace('RUNS', str(runs))} && {command}"
    result = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True)
    assert result.returncode == 3, result.stderr
    lines = {line["name"]: line for line in json.loads(result.stdout)["checks"]}
    bad = [name for name, line in lines.items() if line["status"] == "fail"]
    assert all(lines[name]["way_out"] for name in bad)
    return bad, lines


SMALL_SHM = "mount -t tmpfs -o size=16m none /dev/shm"


@needs_mounts
def test_a_small_shm_a_full_disk_and_a_read_only_folder(tmp_path: Path) -> None:
    """No rank is started, and the rest is left out."""
    bad, lines = _failed_with(f"{SMALL_SHM} && mount -t tmpfs -o size=1m,ro none RUNS", tmp_path)
    assert bad == ["disk", "/dev/shm", "shared folder"]
    assert "16 MiB" in lines["/dev/shm"]["value"]
    assert "Read-only file system" in lines["shared folder"]["value"]
    assert lines["parallel"]["status"] == "skip"


@needs_mounts
@pytest.mark.slow
@pytest.mark.parametrize(
    ("mounts", "names", "value"),
    [
        (SMALL_SHM, ["/dev/shm"], "16 MiB free"),
        ("mount -t tmpfs -o size=70m none RUNS", ["disk"], "0.1 GiB free"),
        ("mount -t tmpfs -o size=1m none RUNS", ["disk", "shared folder"], "No space left"),
        ("mount -t tmpfs -o ro none RUNS", ["shared folder"], "Read-only file system"),
    ],
)
def test_each_on_four_ranks(tmp_path: Path, mounts: str, names: list[str], value: str) -> None:
    """What the ranks can still do passes."""
    words = ["train.launcher.ranks_per_node=4", "train.sp_size=2"]
    words += ["train.global_batch_tokens=8192"]
    bad, lines = _failed_with(mounts, tmp_path, *words)
    assert bad == names and value in lines[names[-1]]["value"]
    told = "skip" if "shared folder" in names else "pass"
    assert lines["save and resume"]["status"] == told
