"""Start the ranks that measure, from the command's process, and wait for their end."""

from dataclasses import replace
from pathlib import Path

import torch

from ropewalk.conf.artifacts.records import remove
from ropewalk.conf.errors import RopewalkError
from ropewalk.conf.schema import Config
from ropewalk.eval.worker import JOB, Job
from ropewalk.train.launcher import command, failure
from ropewalk.train.launcher.ranks import killed, started


def ranks_per_node(config: Config) -> int:
    """As set; else one for each GPU, as in training, and on a CPU as many as share a sequence.
    Under a launcher that started each rank by itself, as many as it did."""
    if command.is_by_task():
        return command.ranks_per_node(config)
    on_cpu = config.eval.sp_size
    unset = command.ranks_per_node(config) if torch.cuda.is_available() else on_cpu
    return config.eval.ranks_per_node or unset


def starts_ranks(config: Config) -> bool:
    """Whether other processes measure. One that holds the whole model is this one."""
    machines = command.is_on_several_machines(config) and torch.cuda.is_available()
    return ranks_per_node(config) > 1 or machines or config.eval.zero_stage == 3


def measure(job: Job, folder: Path) -> None:
    """Run the ranks; they write results.json into `folder`. An interrupt ends them.

    Raises: RopewalkError with the ranks' exit code.
    """
    job.write(folder)
    config = with_own_ranks(job.config)
    try:
        with started(config, folder, folder, "ropewalk.eval") as ranks:
            code = ranks.wait()
    finally:
        for name in JOB:
            remove(folder / name)
    if code:
        raise _error_of(folder, code)


def with_own_ranks(config: Config) -> Config:
    """The settings of the launcher, with eval's number of ranks."""
    launcher = replace(config.train.launcher, ranks_per_node=ranks_per_node(config))
    return replace(config, train=replace(config.train, launcher=launcher))


def _error_of(folder: Path, code: int) -> RopewalkError:
    note = failure.read(folder)
    if note is None or "signal" in note:
        return RopewalkError(killed(code, "eval", note))
    error = RopewalkError(
        f"eval: the ranks ended with exit code {note['exit_code']}; {failure.rank_name(note)} was "
        "the first; their messages are above"
    )
    error.exit_code = int(note["exit_code"])
    return error
