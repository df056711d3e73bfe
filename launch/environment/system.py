"""System, processor, memory and limits, from the kernel's own files."""

import os
import platform
import re
import resource
from collections.abc import Iterator
from pathlib import Path

from ropewalk.conf.artifacts.free_space import gib

ROOT = Path("/")
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")
"""Of the processor, that decide which of torch's CPU kernels run."""
NO_LIMIT_BYTES = 1 << 60
"""cgroup v1 has no word for no limit, but a number near 2^63."""


def rows() -> Iterator[tuple[str, str]]:
    """Name and value of each."""
    yield "system", f"{_distribution()}, {platform.system()} {platform.release()}"
    yield "python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "processor", processor()
    yield "cores", cores()
    yield "memory", memory()
    yield "cgroup memory limit", limit_text(cgroup_memory_bytes())
    yield "/dev/shm", shared_memory()
    yield "open files (ulimit -n)", _limit(resource.RLIMIT_NOFILE, 1)
    yield "locked memory (ulimit -l)", _limit(resource.RLIMIT_MEMLOCK, 1024)


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "unknown distribution"


def processor(root: Path = ROOT) -> str:
    """Model and the instruction sets that matter."""
    text = _read(root / "proc/cpuinfo")
    fields = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", text.partition("\n\n")[0], re.M))
    model = fields.get("model name") or platform.processor() or platform.machine()
    present = (fields.get("flags") or fields.get("Features") or "").split()
    shown = [flag for flag in FLAGS if flag in present]
    return f"{model}, {platform.machine()}" + (f" ({', '.join(shown)})" if shown else "")


def cores() -> str:
    """Of the machine, of this process, and of its cgroup."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = cgroup_cores()
    share = "" if quota is None else f", {quota:g} by the cgroup"
    return f"{os.cpu_count()}, {usable} for this process{share}"


def memory(root: Path = ROOT) -> str:
    """Of the machine."""
    text = _read(root / "proc/meminfo")
    kib = {name: int(size) for name, size in re.findall(r"^(\w+): +(\d+) kB$", text, re.M)}
    if "MemTotal" not in kib:
        return "unknown"
    names = {"MemTotal": "", "MemAvailable": " available", "SwapTotal": " swap"}
    return ", ".join(f"{gib(kib[n] << 10)}{text}" for n, text in names.items() if n in kib)


def cgroup_memory_bytes(root: Path = ROOT) -> int | None:
    """The lowest memory limit of this process's cgroup and those above it; None without one."""
    files = (("memory.max", ""), ("memory.limit_in_bytes", "memory"))
    texts = [text for name, kind in files for text in _cgroup_values(root, name, kind)]
    sizes = [int(text) for text in texts if text.isdecimal()]
    return min((size for size in sizes if size < NO_LIMIT_BYTES), default=None)


def cgroup_cores(root: Path = ROOT) -> float | None:
    """The lowest share of processor time, in cores; None without one."""
    pairs = [text.split() for text in _cgroup_values(root, "cpu.max", "")]
    quotas = _cgroup_values(root, "cpu.cfs_quota_us", "cpu")
    periods = _cgroup_values(root, "cpu.cfs_period_us", "cpu")
    pairs += [list(pair) for pair in zip(quotas, periods, strict=False)]
    shares = [int(q) / int(p) for q, p in pairs if q.isdecimal() and p.isdecimal() and int(p)]
    return min(shares, default=None)


def _cgroup_values(root: Path, name: str, controller: str) -> list[str]:
    """A file's content in this process's cgroup and in each above it. `controller`: of version 1;
    empty for version 2."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        folder = root / "sys/fs/cgroup" / controller
        parts = [part for part in path.split("/") if part and part != ".."]
        # inside a container the path may be that of the host: the mounted top is looked at too
        groups = [folder.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
        return [text for group in groups if (text := _read(group / name).strip())]
    return []


def limit_text(size: int | None) -> str:
    return "none" if size is None else gib(size)


def shared_memory(root: Path = ROOT) -> str:
    """Size and room."""
    try:
        stat = os.statvfs(root / "dev/shm")
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    size, free = stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize
    return f"{gib(size)}, {gib(free)} free"


def _limit(number: int, unit: int) -> str:
    """As `ulimit` shows it."""
    soft, hard = resource.getrlimit(number)
    shown = [
        "unlimited" if value == resource.RLIM_INFINITY else f"{value // unit}"
        for value in (soft, hard)
    ]
    return shown[0] if soft == hard else f"{shown[0]} (at most {shown[1]})"


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
