"""Settings of `launch=slurm`: what a job asks for, and when it is queued again."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ropewalk.conf.rules import setting

TIME = re.compile(r"\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d\d?(:\d\d(:\d\d)?)?")
"""Of sbatch: MINUTES, MINUTES:SECONDS, HOURS:MINUTES:SECONDS, DAYS-HOURS[:MINUTES[:SECONDS]]."""
MEMORY = re.compile(r"\d+[KMGT]?B?")
MAY_BE_REQUIRED = ("account", "partition", "qos", "time_limit", "memory", "cpus_per_task")


def text_problems(prefix: str, time_limit: str | None, memory: str | None) -> Iterator[str]:
    """Lines for times and sizes that sbatch would not read."""
    if time_limit is not None and not TIME.fullmatch(time_limit):
        yield (
            f"{prefix}time_limit is {time_limit}; it must be a time of Slurm's, minutes or "
            "DAYS-HOURS:MINUTES:SECONDS; e.g. 1-12:00:00"
        )
    if memory is not None and not MEMORY.fullmatch(memory):
        yield (
            f"{prefix}memory is {memory}; it must be a whole number with K, M, G or T behind it; "
            "e.g. 200G"
        )


@dataclass(kw_only=True)
class SlurmDataConfig:
    """The job that makes the data before the training, on nodes without GPUs."""

    tasks: int = setting(0, at_least=0)
    """Tasks of an array that make the token stores' shards, before one job that merges them; 1:
    that job alone makes the data; 0: the job of the training makes them itself. A sweep makes its
    data before its runs in any case."""
    partition: str | None = None
    """Unset: that of the training."""
    cpus_per_task: int | None = setting(None, at_least=1, way_out="unset it for the site's default")
    """Cores of a task; unset: the site's default."""
    memory: str | None = None
    """Host memory of a node, such as 64G; unset: the site's default."""
    time_limit: str | None = None
    """Unset: that of the training."""

    def problems(self, prefix: str) -> Iterator[str]:
        yield from text_problems(prefix, self.time_limit, self.memory)


@dataclass(kw_only=True)
class SlurmConfig:
    """What a job asks Slurm for, and when it is queued again."""

    partition: str | None = None
    """Unset: the site's default."""
    account: str | None = None
    """Which account pays; unset: the user's default."""
    qos: str | None = None
    """Quality of service; unset: the user's default."""
    gpus_per_node: int | None = setting(None, at_least=0, way_out="e.g. 8, or 0 for none")
    """GPUs of each node, which are its ranks where train.launcher.ranks_per_node is unset; unset:
    the job asks for none."""
    gpu_type: str | None = None
    """As the site names it, such as h100; unset: any."""
    cpus_per_task: int | None = setting(None, at_least=1, way_out="unset it for the site's default")
    """Cores of a node's task; unset: the site's default, which is often 1."""
    memory: str | None = None
    """Host memory of a node, such as 200G (0: all of it); unset: the site's default."""
    time_limit: str | None = None
    """MINUTES or DAYS-HOURS:MINUTES:SECONDS; unset: the partition's default."""
    must_be_set: list[str] = setting(factory=list, one_of=MAY_BE_REQUIRED)
    """Settings of this section without which the site takes no job, such as [account]: a job
    without them is refused here, with their names."""
    stop_signal_s: int = setting(300, at_least=0, at_most=65535, way_out="e.g. 300")
    """Seconds before the time limit at which the run is asked to save and stop. Slurm counts them
    to about half a minute."""
    requeue: bool = False
    """In a Slurm job that is asked to stop by its time limit or for another job: queue it again,
    so that it goes on by itself (launch=slurm sets it). A job that the user cancels stays so."""
    max_idle_attempts: int = setting(1, at_least=1)
    """Attempts of a job in a row that may end without a new step in a checkpoint and without a
    newly finished stage; the next attempt stops and says why."""
    array_parallelism: int | None = setting(None, at_least=1, way_out="unset it for all at once")
    """Runs of a sweep, or tasks of data.tasks, at once; unset: as many as Slurm lets."""
    setup: list[str] = setting(factory=list)
    """Lines of shell before the command, such as `module load cuda`."""
    srun_args: list[str] = setting(factory=list)
    """Arguments of srun, such as `--container-image=FILE`."""
    data: SlurmDataConfig = setting(factory=SlurmDataConfig)

    def problems(self, prefix: str) -> Iterator[str]:
        yield from text_problems(prefix, self.time_limit, self.memory)

    def kind_problems(self, prefix: str) -> Iterator[str]:
        """Where a job is to be submitted."""
        for name in self.must_be_set:
            if name in MAY_BE_REQUIRED and getattr(self, name) is None:
                yield (
                    f"{prefix}{name} is unset; this site takes no job without it "
                    f"({prefix}must_be_set); set {prefix}{name}"
                )
