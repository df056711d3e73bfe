"""Figures of the machine beside the kernel's own programs, and files of other machines."""

import os
import subprocess
from pathlib import Path

import psutil
import pytest

from ropewalk.launch.environment import system

GIB = 2**30
NPROC = ("env", "-u", "OMP_NUM_THREADS", "nproc")  # which that variable overrules


def printed(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_figures_are_those_of_other_programs() -> None:
    rows = dict(system.rows())
    assert rows["memory"].startswith(f"{psutil.virtual_memory().total / GIB:,.1f} GiB, ")
    assert rows["cores"].startswith(f"{os.cpu_count()}, {printed(*NPROC).strip()} for this")
    total, free = printed("df", "-B1", "--output=size,avail", "/dev/shm").split()[-2:]
    assert rows["/dev/shm"].startswith(f"{int(total) / GIB:,.1f} GiB, {int(free) / GIB:,.1f}")
    for flag, name in (("-n", "open files"), ("-l", "locked memory")):
        row = rows[f"{name} (ulimit {flag})"]
        assert row.split()[0] == printed("bash", "-c", f"ulimit -S {flag}").strip()
        assert row.split()[-1].rstrip(")") == printed("bash", "-c", f"ulimit -H {flag}").strip()
    release = printed("uname", "-r").strip()
    assert release in rows["system"]
    assert rows["python"].startswith(".".join(map(str, os.sys.version_info[:3])))  # type: ignore[attr-defined]


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_lowest_limit_above_the_cgroup_counts(tmp_path: Path) -> None:
    """Version 2: the job's own group has no limit, the one above has."""
    root = written(
        tmp_path,
        {
            "proc/self/cgroup": "0::/slurm/job_1/step_0\n",
            "sys/fs/cgroup/slurm/job_1/step_0/memory.max": "max\n",
            "sys/fs/cgroup/slurm/job_1/memory.max": f"{64 * GIB}\n",
            "sys/fs/cgroup/slurm/memory.max": f"{500 * GIB}\n",
            "sys/fs/cgroup/slurm/job_1/cpu.max": "1250000 100000\n",
            "sys/fs/cgroup/slurm/job_1/step_0/cpu.max": "max 100000\n",
        },
    )
    assert system.cgroup_memory_bytes(root) == 64 * GIB
    assert system.limit_text(64 * GIB) == "64.0 GiB" and system.cgroup_cores(root) == 12.5


def test_version_1_and_a_container_that_sees_its_group_at_the_top(tmp_path: Path) -> None:
    root = written(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{8 * GIB}\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert system.cgroup_memory_bytes(root) == 8 * GIB and system.cgroup_cores(root) == 2


@pytest.mark.parametrize("text", ["9223372036854771712", "max", ""])
def test_no_limit_is_none(tmp_path: Path, text: str) -> None:
    files = {
        "proc/self/cgroup": "5:memory:/\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": text,
        "sys/fs/cgroup/memory.max": text,
    }
    assert system.cgroup_memory_bytes(written(tmp_path, files)) is None
    assert system.cgroup_memory_bytes(tmp_path / "nowhere") is None
    assert system.limit_text(None) == "none"


def test_the_processor_of_an_arm_machine_and_of_none(tmp_path: Path) -> None:
    text = "processor\t: 0\nFeatures\t: fp asimd sve bf16\nCPU part\t: 0xd4f\n\nprocessor\t: 1\n"
    root = written(tmp_path, {"proc/cpuinfo": text})
    assert system.processor(root).endswith("(asimd, sve, bf16)")
    assert system.processor(tmp_path / "nowhere") and system.memory(tmp_path) == "unknown"
    assert system.shared_memory(tmp_path).startswith("cannot be read (No such file")


def test_the_processor_is_that_of_lscpu() -> None:
    text = Path("/proc/cpuinfo").read_text()
    assert system.processor().split(",")[0] in text or "model name" not in text
