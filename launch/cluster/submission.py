"""The batch scripts of one command and their order: pure, until they are written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ropewalk.conf.artifacts.records import write_text
from ropewalk.conf.launchers import LaunchConfig
from ropewalk.launch.cluster.queue import dependency
from ropewalk.launch.cluster.script import TASK, Task, batch_script
from ropewalk.launch.cluster.words import job_words, shell_command

NEEDS_DATA = ("data", "run", "train", "eval", "report", "calibrate", "export")
SUBMIT = "submit.sh"


@dataclass(frozen=True)
class Script:
    """A batch script, and the scripts whose jobs must have ended well before its own."""

    name: str
    """Of its file, without `.sh`."""
    text: str
    after: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        return f"{self.name}.sh"


def scripts_of(
    launch: LaunchConfig, name: str, verb: str, typed: Sequence[str], folder: str
) -> list[Script]:
    """The scripts of one run's command in the order of their submission: data, then the rest.

    `name`: the run's. `folder`: of the scripts and of what their jobs print.
    """
    tasks = _data_tasks(launch, name, verb, typed) if verb in NEEDS_DATA else []
    if verb != "data":
        command = shell_command(job_words(verb, typed, launch), launch)
        tasks.append((verb, Task(f"{name}-{verb}" if tasks else name, (command,))))
    scripts: list[Script] = []
    for file, task in tasks:
        after = (scripts[-1].name,) if scripts else ()
        scripts.append(Script(file, batch_script(launch, task, folder), after))
    return scripts


def _data_tasks(
    launch: LaunchConfig, name: str, verb: str, typed: Sequence[str]
) -> list[tuple[str, Task]]:
    """The job that makes the data; before it, where it has tasks, an array for its shards."""
    count = launch.slurm.data.tasks or (verb == "data")
    if not count:
        return []
    command = shell_command(job_words("data", typed, launch, one_node=True), launch)
    if count == 1:
        return [("data", Task(f"{name}-data", (command,), on_gpus=False))]
    shards = Task(f"{name}-shards", (f"{command} --shard {TASK}/{count}",), False, count)
    merge = Task(f"{name}-data", (f"{command} --merge",), on_gpus=False)
    return [("data-shards", shards), ("data", merge)]


def submit_script(scripts: Sequence[Script]) -> str:
    """Shell that submits them by hand, in their order."""
    lines = [
        "#!/bin/bash",
        "# Submits the jobs in their order, each after those that it needs.",
        "set -e",
        'cd "$(dirname "$0")"',
    ]
    for script in scripts:
        after = dependency([f"${_variable(name)}" for name in script.after])
        words, variable = (
            " ".join(["sbatch --parsable", *after, script.file]),
            _variable(script.name),
        )
        lines.append(f"{variable}=$({words}); echo {script.name}: job ${variable}")
    return "\n".join(lines) + "\n"


def _variable(name: str) -> str:
    return f"job_{name.replace('-', '_')}"


def write(scripts: Sequence[Script], folder: Path) -> list[Path]:
    """Write the scripts, and the one that submits them; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    texts: Mapping[str, str] = {script.file: script.text for script in scripts}
    texts = {**texts, SUBMIT: submit_script(scripts)}
    for file, text in texts.items():
        write_text(folder / file, text)
    (folder / SUBMIT).chmod(0o755)
    return [folder / file for file in texts]
