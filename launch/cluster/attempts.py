"""The record of each attempt of a Slurm job, in the run's folder.

    slurm/job-17.log                         what all attempts printed, one after the other
    slurm/job-17/attempt-2/attempt.json      when and where it ran, what it began with, how it ended
    slurm/job-17/attempt-2/rank-0.log        what a rank printed

Job and attempt are Slurm's own (SLURM_JOB_ID, SLURM_RESTART_COUNT), so the commands of all nodes
know them without asking one another.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.records import read_signed, signed, write_json
from ropewalk.launch.cluster.guard import Attempt, Progress
from ropewalk.launch.pipeline.order import FOLDERS

FOLDER, RECORD, SUBMITTED = "slurm", "attempt.json", "submitted.json"


@dataclass(frozen=True)
class SlurmJob:
    """The job that a command runs in."""

    id: str
    """Of its own also for each task of an array."""
    restarts: int = 0
    nodes: str = ""
    is_first: bool = True
    """Whether this command is that of the job's first task."""

    @classmethod
    def of(cls, env: Mapping[str, str]) -> "SlurmJob | None":
        """From the variables that Slurm sets; None outside of a job."""
        if not (job := env.get("SLURM_JOB_ID")):
            return None
        restarts = env.get("SLURM_RESTART_COUNT", "0")
        is_first = env.get("SLURM_PROCID", "0") == "0"
        return cls(job, int(restarts), env.get("SLURM_JOB_NODELIST", ""), is_first)

    @property
    def attempt(self) -> int:
        return self.restarts + 1

    def folder(self, run: Path, attempt: int | None = None) -> Path:
        """Of this attempt, or of another one of the job."""
        return run / FOLDER / f"job-{self.id}" / f"attempt-{attempt or self.attempt}"


def progress(run: Path) -> Progress:
    """What a run's folder keeps."""
    from ropewalk.launch.runs import files, training

    stages = set()
    for folder in training.phase_folders(run):
        prefix = "" if folder == run else f"{folder.relative_to(run)}/"
        for stage, name in FOLDERS.items():
            if files.stage_manifest(folder / name) is not None:
                stages.add(f"{prefix}{stage}")
    current = training.of(run)
    step = 0
    if not current.is_finished and current.checkpoint is not None:
        step = int(current.checkpoint.rpartition("-")[2])
    return Progress(frozenset(stages), step)


def trained_step(run: Path) -> int:
    """The last step of the training at work, with or without a checkpoint."""
    from ropewalk.launch.runs import training

    return training.of(run).step or 0


def begin(job: SlurmJob, run: Path, record: Mapping[str, Any]) -> None:
    """Write what the attempt begins with."""
    folder = job.folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    values = {"schema": 1, "job": job.id, "attempt": job.attempt, "nodes": job.nodes, **record}
    write_json(folder / RECORD, signed(values))


def end(job: SlurmJob, run: Path, record: Mapping[str, Any]) -> None:
    """Add how the attempt ended."""
    file = job.folder(run) / RECORD
    write_json(file, signed({**(read_signed(file) or {}), **record}))


def read(run: Path, job: str) -> list[dict[str, Any]]:
    """The records of a job's attempts in order; one that is damaged is left out."""
    parent = run / FOLDER / f"job-{job}"
    folders = [path for path in parent.glob("attempt-*") if path.name[8:].isdecimal()]
    records = [read_signed(f / RECORD) for f in sorted(folders, key=lambda f: int(f.name[8:]))]
    return [record for record in records if record is not None]


def earlier(job: SlurmJob, run: Path) -> list[Attempt]:
    """The attempts of this job before this one."""
    records = [record for record in read(run, job.id) if record["attempt"] < job.attempt]
    return [attempt_of(record) for record in records]


def attempt_of(record: Mapping[str, Any]) -> Attempt:
    start = Progress(frozenset(record["stages"]), record["step"])
    trained = record.get("trained", record.get("step", 0))
    return Attempt(record["attempt"], start, record.get("exit_code"), trained)


def environment(job: SlurmJob, run: Path) -> dict[str, str]:
    """For the ranks: where each writes its own log."""
    from ropewalk.train.launcher.rank_logs import FOLDER_VARIABLE

    return {FOLDER_VARIABLE: os.path.abspath(job.folder(run))}


def as_text(records: Sequence[Mapping[str, Any]]) -> str:
    """A line for each attempt."""
    lines = []
    for record in records:
        code = record.get("exit_code")
        ended = "at work, or ended without a word" if code is None else f"exit code {code}"
        lines.append(
            f"attempt {record['attempt']} of job {record['job']} on {record['nodes']}: from step "
            f"{record['step']}, {ended}"
        )
    return "\n".join(lines)
