"""Settings of how a command comes to its machines: who starts it there, and how many there are."""

from collections.abc import Iterator
from dataclasses import dataclass

from ropewalk.conf.launch_kubernetes import KubernetesConfig, SkypilotConfig
from ropewalk.conf.launch_slurm import SlurmConfig
from ropewalk.conf.rules import setting

KINDS = ("local", "torchrun", "slurm", "kubernetes", "skypilot", "external")
SUBMITTED = ("slurm", "kubernetes", "skypilot")
"""Kinds whose command comes to its machines later, as a job."""


@dataclass(kw_only=True)
class LaunchConfig:
    """Who starts the command on its machines. On each of them it is the same command: the first
    leads the stages, and every one starts its ranks."""

    kind: str = setting("local", one_of=KINDS)
    """local: this machine, or those that the launcher which started this command names (torchrun,
    srun, mpirun, a TrainJob's pod, DeepSpeed). external: the same, and refused where no launcher
    does. torchrun: this command starts torchrun. slurm: it submits a job. kubernetes and
    skypilot: it writes their files. Chosen by `launch=KIND`."""
    nodes: int | None = setting(None, at_least=1, way_out="unset it for those of the launcher")
    """Machines. Unset: as many as the launcher says, else 1. 1: this machine alone, whatever
    variables of a launcher are set."""
    prefix: str | None = None
    """Words before the command on each machine, such as `apptainer exec --nv image.sif`."""
    arguments: list[str] = setting(factory=list)
    """Words for the launcher: those after `--` on the command line."""
    address: str | None = setting(None, way_out="a name or an address of the first machine")
    """The first machine, as all others reach it. Unset: as the launcher says."""
    port: int | None = setting(
        None, at_least=1024, at_most=65535, way_out="unset it, or a free port of the first machine"
    )
    """Port of the first machine where the commands of all machines meet. Unset: as the launcher
    says, else one of 29400 to 32499 that the job chooses. The ranks meet at another,
    `train.launcher.master_port`."""
    join_timeout_s: float = setting(600.0, above=0, at_most=86400, way_out="e.g. 600")
    """Seconds in which the command of every machine must come, after which those that did not
    are named and all end."""
    follow: bool = False
    """launch=slurm: stay until the job has ended, show what it prints, and end with its exit
    code."""
    env: dict[str, str] = setting(factory=dict)
    """Variables of a job on a cluster, over those that ropewalk sets there (its script shows
    them)."""
    scratch: str | None = None
    """A folder on a node's own disk, where a job on a cluster keeps its compiled kernels, such as
    `/scratch/$USER`; variables of the node's shell are expanded in Slurm's. Unset: where the
    libraries keep them, often in the home folder that all nodes share."""
    slurm: SlurmConfig = setting(factory=SlurmConfig)
    kubernetes: KubernetesConfig = setting(factory=KubernetesConfig)
    skypilot: SkypilotConfig = setting(factory=SkypilotConfig)

    def problems(self, prefix: str) -> Iterator[str]:
        if self.kind == "slurm":
            yield from self.slurm.kind_problems(f"{prefix}slurm.")
        if self.kind == "kubernetes":
            yield from self.kubernetes.kind_problems(f"{prefix}kubernetes.")
        if self.kind == "skypilot":
            yield from self.skypilot.kind_problems(f"{prefix}skypilot.")
