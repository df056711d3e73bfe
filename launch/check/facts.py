"""What one process sees of its machine; nothing is judged here."""

import resource
import shutil
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from ropewalk.launch.environment import system
from ropewalk.launch.pipeline.versions import code_digest, versions

SHM = Path("/dev/shm")
UNLIMITED = 1 << 60


@dataclass(frozen=True)
class HostFacts:
    """Of one rank's process and machine. Sizes are bytes; `clock` is the time of day, s."""

    host: str
    rank: int
    versions: dict[str, str]
    """Packages and builds, and a digest of ropewalk's own code."""
    shm_free: int
    open_files: int
    """The soft limit of this process."""
    locked_bytes: int
    memory_limit: int
    """What this process and its neighbours may use in all: of the cgroup, else of the machine."""
    memory_free: int
    gpu: dict[str, Any] = field(default_factory=dict)
    """Of the rank's device; empty on a CPU."""
    clock: float = 0.0


def host_facts(rank: int = 0, of_rank: bool = True) -> HostFacts:
    """Read from this process. `of_rank` False: of the command, which must not open a GPU."""
    now, memory = time.time(), psutil.virtual_memory()
    limit = min(memory.total, system.cgroup_memory_bytes() or memory.total)
    return HostFacts(
        host=socket.gethostname(),
        rank=rank,
        versions=software(),
        shm_free=free_bytes(SHM),
        open_files=_limit(resource.RLIMIT_NOFILE),
        locked_bytes=_limit(resource.RLIMIT_MEMLOCK),
        memory_limit=limit,
        memory_free=min(memory.available, limit),
        gpu=gpu_facts() if of_rank else {},
        clock=now,
    )


def software() -> dict[str, str]:
    """Versions of what affects results, the build of torch, and ropewalk's own code."""
    import torch

    builds = {"torch build": torch.__version__, "ropewalk code": code_digest()[:12]}
    if torch.cuda.is_available():
        builds |= {
            "CUDA": str(torch.version.cuda),
            "NCCL": ".".join(map(str, torch.cuda.nccl.version())),
            "cuDNN": str(torch.backends.cudnn.version()),
        }
    return versions() | builds


def free_bytes(folder: Path) -> int:
    """Free on the disk of `folder`; 0 without one."""
    return shutil.disk_usage(folder).free if folder.is_dir() else 0


def _limit(which: int) -> int:
    soft = resource.getrlimit(which)[0]
    return UNLIMITED if soft == resource.RLIM_INFINITY else soft


def gpu_facts() -> dict[str, Any]:
    """Name and memory of the rank's device; from the driver, where nvidia-ml-py is installed: its
    version, uncorrected errors of memory, reasons for a lower clock, other processes."""
    import torch

    if not torch.cuda.is_available():
        return {}
    device = torch.cuda.get_device_properties(torch.cuda.current_device())
    facts = {"name": device.name, "bytes": device.total_memory}
    return facts | _driver_facts(str(getattr(device, "uuid", "")))


def _driver_facts(uuid: str) -> dict[str, Any]:
    try:
        import pynvml
    except ImportError:
        return {}
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if "GPU" in uuid else f"GPU-{uuid}")
        # in a container the driver's numbers of processes are others than os.getpid()
        others = max(0, len(pynvml.nvmlDeviceGetComputeRunningProcesses(handle)) - 1)
        facts = {
            "driver": pynvml.nvmlSystemGetDriverVersion(),
            "other processes": others,
            "throttled": _throttled(pynvml, handle),
        }
        return facts | _memory_errors(pynvml, handle)
    except pynvml.NVMLError as error:
        return {"driver error": str(error)}


def _throttled(pynvml: Any, handle: Any) -> list[str]:
    """Why the clock is lower than it could be, as far as it is a fault: heat and power brakes."""
    active = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    reasons = {
        "heat": pynvml.nvmlClocksThrottleReasonHwThermalSlowdown
        | pynvml.nvmlClocksThrottleReasonSwThermalSlowdown,
        "power brake": pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown,
    }
    return [name for name, mask in reasons.items() if active & mask]


def _memory_errors(pynvml: Any, handle: Any) -> dict[str, int]:
    try:
        count = pynvml.nvmlDeviceGetTotalEccErrors(
            handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, pynvml.NVML_VOLATILE_ECC
        )
    except pynvml.NVMLError:  # a device without ECC
        return {}
    return {"memory errors": int(count)}
