"""The pool that a sweep's jobs run in, as `launch` and `sweep.pool` choose it."""

import os
from pathlib import Path

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.launch.sweep.jobs import Pool
from ropewalk.launch.sweep.local import LocalPool

LOGS = "logs"


def pool_of(config: Config, size: int, folder: Path) -> Pool:
    """`size`: sweep.pool. `folder`: the sweep's.

    Raises: ConfigError for more runs at once than this machine can hold apart, and for a cluster
        that only manifests are written for.
    """
    kind = config.launch.kind
    if kind == "slurm":
        from ropewalk.launch.cluster.pool import SlurmPool

        return SlurmPool(config.launch, folder.name, folder / "slurm", folder / LOGS)
    if kind in ("kubernetes", "skypilot"):
        raise ConfigError(
            f"launch is {kind}; a sweep runs on this machine or in Slurm; write the manifests of "
            "each run by itself"
        )
    devices = visible_devices()
    if devices and size > len(devices):
        raise ConfigError(
            f"sweep.pool is {size}; this machine has {len(devices)} GPUs, and every run needs one "
            f"of its own; lower it to {len(devices)}"
        )
    return LocalPool(size, folder / LOGS, environments=environments(size, devices))


def gpus_of_a_run(config: Config, size: int) -> int:
    """What a run has, for a budget in GPU-hours; on a machine without GPUs its ranks."""
    ranks = config.train.launcher.ranks_per_node
    return ranks or max(1, len(visible_devices()) // size)


def visible_devices() -> list[str]:
    """The GPUs of this process, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    count = torch.cuda.device_count()
    return named[:count] if len(named) >= count else [str(number) for number in range(count)]


def environments(size: int, devices: list[str]) -> list[dict[str, str]]:
    """The variables of each place in the pool: its share of the GPUs, or of the cores.

    One run at a time has the machine as it is. Threads that the user set are left as they are.
    """
    if size == 1:
        return [{}]
    if devices:
        share = len(devices) // size
        parts = [devices[n * share : (n + 1) * share] for n in range(size)]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(part)} for part in parts]
    threads = max(1, len(os.sched_getaffinity(0)) // size)
    own = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(threads)}
    return [own] * size
