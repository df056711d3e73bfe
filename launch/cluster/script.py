"""The batch script of a Slurm job, written by submitit: settings in, text out."""

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.launchers import LaunchConfig
from ropewalk.launch.cluster.variables import exports

SIGNAL = "USR1"
"""Which asks a run to save and stop (train/launcher/ranks.py). submitit's own is USR2."""
TASK = "$SLURM_ARRAY_TASK_ID"


@dataclass(frozen=True)
class Task:
    """What a job runs."""

    name: str
    """Of the job in the queue."""
    commands: tuple[str, ...]
    """Lines of shell, each `ropewalk ...` in words; with several, an array runs one in each of its
    tasks."""
    on_gpus: bool = True
    """Whether it trains. What makes data runs on one node without GPUs."""
    count: int | None = None
    """Tasks of an array that all run the one command, in which TASK stands for their number."""

    @property
    def array(self) -> int | None:
        return self.count or (len(self.commands) if len(self.commands) > 1 else None)


def batch_script(launch: LaunchConfig, task: Task, folder: str) -> str:
    """The text for `sbatch`. `folder`: where it writes what the job prints, `job-ID.log`.

    Raises: ConfigError without submitit.
    """
    make_sbatch_string = _submitit()
    slurm = launch.slurm
    request = _request(launch) if task.on_gpus else _data_request(launch)
    log = f"{folder}/job-{'%A_%a' if task.array else '%j'}.log"
    text: str = make_sbatch_string(
        command=_body(launch, task, request),
        folder=folder,
        job_name=task.name,
        account=slurm.account,
        qos=slurm.qos,
        ntasks_per_node=1,
        wckey=None,
        setup=[*exports(launch), *slurm.setup],
        stderr_to_stdout=True,
        use_srun=False,  # in the command, with words of its own
        map_count=task.array,
        array_parallelism=slurm.array_parallelism or task.array or 1,
        additional_parameters={
            "chdir": os.getcwd(),  # where relative paths of the command begin
            "output": log,
            "signal": f"{SIGNAL}@{slurm.stop_signal_s}",
            "requeue" if slurm.requeue else "no-requeue": True,
        },
        **request,
    )
    return _with_arguments(text, launch.arguments)


def _submitit() -> Callable[..., str]:
    try:
        from submitit.slurm.slurm import _make_sbatch_string
    except ImportError as error:
        raise ConfigError(
            "launch is slurm; its batch scripts are written by submitit, which is not installed; "
            "pip install 'ropewalk[slurm]'"
        ) from error
    return _make_sbatch_string


def _request(launch: LaunchConfig) -> dict[str, object]:
    """What a training asks for, by the names of submitit."""
    slurm = launch.slurm
    gpus: object = slurm.gpus_per_node or None
    if gpus and slurm.gpu_type:
        gpus = f"{slurm.gpu_type}:{gpus}"
    return {
        "nodes": launch.nodes or 1,
        "gpus_per_node": gpus,
        "partition": slurm.partition,
        "cpus_per_task": slurm.cpus_per_task,
        "mem": slurm.memory,
        "time": slurm.time_limit,
    }


def _data_request(launch: LaunchConfig) -> dict[str, object]:
    slurm, data = launch.slurm, launch.slurm.data
    return {
        "nodes": 1,
        "partition": data.partition or slurm.partition,
        "cpus_per_task": data.cpus_per_task,
        "mem": data.memory,
        "time": data.time_limit or slurm.time_limit,
    }


def _body(launch: LaunchConfig, task: Task, request: dict[str, object]) -> str:
    """The commands, started once on each node. In an array a task runs its own."""
    srun = shlex.join(["srun", *_srun_words(launch, request)])
    lines = [" ".join([srun, *([launch.prefix] if launch.prefix else [])])]
    if len(task.commands) == 1:
        return f"{lines[0]} {task.commands[0]}"
    cases = [f"  {number}) {lines[0]} {command} ;;" for number, command in enumerate(task.commands)]
    return "\n".join(['case "$SLURM_ARRAY_TASK_ID" in', *cases, "esac"])


def _srun_words(launch: LaunchConfig, request: dict[str, object]) -> list[str]:
    """A node whose command ends early does not end those of others: they notice a death
    themselves, and the first goes on alone after the training.

    srun takes no cores over from sbatch (since 22.05).
    """
    words = ["--unbuffered", "--kill-on-bad-exit=0", "--wait=0"]
    if request["nodes"] != 1:
        words.append("--label")
    if request["cpus_per_task"] is not None:
        words.append(f"--cpus-per-task={request['cpus_per_task']}")
    return [*words, *launch.slurm.srun_args]


def _with_arguments(text: str, arguments: Sequence[str]) -> str:
    """The user's words for sbatch as lines at the end of its own, which they overrule."""
    lines: list[str] = []
    for word in arguments:
        if word.startswith("-") or not lines:
            lines.append(f"#SBATCH {shlex.quote(word)}")
        else:  # the value of the word before it
            lines[-1] += f" {shlex.quote(word)}"
    head, mark, rest = text.partition("\n\n# setup\n")
    if not mark:
        head, mark, rest = text.partition("\n\n# command\n")
    return "\n".join([head, *lines]) + mark + rest
