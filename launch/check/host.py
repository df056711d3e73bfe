"""Whether each machine has what the training needs. Facts in, lines out.

W ranks
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ropewalk.conf.artifacts.free_space import Need, existing, gib, space_problems
from ropewalk.conf.schema import Config
from ropewalk.launch.check.facts import UNLIMITED, HostFacts, free_bytes
from ropewalk.launch.check.line import Line
from ropewalk.train.disk_space import MODEL_BYTES

NCCL_SHM, CPU_SHM = 1 << 30, 32 << 20
"""Least room in /dev/shm. NCCL moves a machine's payloads through it where no faster way is open
(NVIDIA/nccl 342, 290); gloo does not, and what torch puts there is small."""
FILES_OF_A_RANK = 8
FILES = 512
"""Open files of a process beside its connections: libraries, shards, pipes."""
STATE_BYTES = 12
"""Of a parameter whose optimizer is offloaded: its fp32 weight and both moments."""


@dataclass(frozen=True)
class HostNeeds:
    """What one machine must have."""

    ranks: int
    """Of this machine."""
    world_size: int
    uses_gpus: bool
    memory: int
    """Bytes of host memory: the base once, and what is offloaded."""
    hosts: int = 1

    @classmethod
    def of(
        cls, config: Config, parameters: int, ranks: int, world_size: int, uses_gpus: bool
    ) -> "HostNeeds":
        """`parameters`: of the whole model. A machine's first rank reads the base at once."""
        memory = parameters * MODEL_BYTES[config.train.precision]
        if config.train.memory.offload_optimizer and config.train.memory.offload_path is None:
            memory += parameters * STATE_BYTES * ranks // world_size
        return cls(ranks, world_size, uses_gpus, memory, max(1, world_size // ranks))


def host_lines(facts: HostFacts, needs: HostNeeds, where: str = "") -> list[Line]:
    """`where`: follows the names, as " on HOST", for machines beside the first."""
    lines = [_memory(facts, needs), _shm(facts, needs), _files(facts, needs), _locked(facts, needs)]
    return [Line(f"{x.name}{where}", x.status, x.value, x.bar, x.way_out) for x in lines]


def disk_line(needs: Sequence[Need]) -> Line:
    """Free space where checkpoints and model go, against what they take."""
    size = sum(max(0, need.size) for need in needs)
    folder = existing(needs[0].folder)
    problems = space_problems(needs)
    return Line.judged(
        "disk",
        not problems,
        f"{gib(free_bytes(folder))} free",
        f"at least {gib(size)}: checkpoints and model",
        "; ".join(problems),
    )


def _memory(facts: HostFacts, needs: HostNeeds) -> Line:
    return Line.judged(
        "host memory",
        facts.memory_free >= needs.memory,
        f"{gib(facts.memory_free)} free of the limit of {gib(facts.memory_limit)}",
        f"at least {gib(needs.memory)}: the base once, and offloaded states",
        "raise the memory of the job or container, or offload less (train.memory)",
    )


def _shm(facts: HostFacts, needs: HostNeeds) -> Line:
    least = NCCL_SHM if needs.uses_gpus and needs.ranks > 1 else CPU_SHM
    return Line.judged(
        "/dev/shm",
        facts.shm_free >= least,
        f"{facts.shm_free / 2**20:,.0f} MiB free",
        f"at least {least / 2**20:,.0f} MiB",
        "start the container with --shm-size=8g (Kubernetes: an emptyDir of medium Memory at "
        "/dev/shm), or empty it",
    )


def _files(facts: HostFacts, needs: HostNeeds) -> Line:
    least = FILES + FILES_OF_A_RANK * needs.world_size
    return Line.judged(
        "open files",
        facts.open_files >= least,
        "unlimited" if facts.open_files >= UNLIMITED else f"{facts.open_files:,} (ulimit -n)",
        f"at least {least:,} for {needs.world_size} ranks",
        "ulimit -n 65536 before the command, or LimitNOFILE of the service",
    )


def _locked(facts: HostFacts, needs: HostNeeds) -> Line:
    name = "locked memory"
    if not needs.uses_gpus or needs.hosts == 1:
        return Line.skipped(name, "only RDMA between machines needs it")
    return Line.judged(
        name,
        facts.locked_bytes >= UNLIMITED,
        "unlimited" if facts.locked_bytes >= UNLIMITED else f"{facts.locked_bytes:,} bytes",
        "unlimited (ulimit -l) for RDMA",
        "ulimit -l unlimited, --ulimit memlock=-1 of the container, or PropagateResourceLimits of "
        "Slurm",
    )


def gpu_line(facts: HostFacts) -> Line:
    """The state of a rank's device, as the driver tells it."""
    name, gpu = f"GPU of rank {facts.rank}", facts.gpu
    if not gpu:
        return Line.skipped(name, "no CUDA device: it computes on the CPU")
    if "driver" not in gpu:
        return Line.skipped(name, gpu.get("driver error", "pip install nvidia-ml-py to see it"))
    errors, throttled = gpu.get("memory errors", 0), gpu["throttled"]
    slowed = f", slowed by {' and '.join(throttled)}" if throttled else ""
    value = (
        f"{gpu['name']}, {gpu['other processes']} other processes, {errors} memory errors{slowed}"
    )
    return Line.judged(
        name,
        not (errors or throttled or gpu["other processes"]),
        value,
        "free, without uncorrected memory errors, and not slowed",
        "end the other processes (nvidia-smi), or take this GPU out of the job and have it "
        "looked at",
    )
