"""The record of a sweep, `runs_dir/sweeps/NAME/sweep.json`: its jobs and how each stands.

It is written as every job ends, and read by `ropewalk runs` and `ropewalk compare`. What a job
made is in its run's folder; nothing is skipped because of this record.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.records import read_signed, signed, write_json
from ropewalk.conf.errors import NOT_PROVEN
from ropewalk.launch.runs.following import without_folders
from ropewalk.launch.sweep.jobs import Job, Outcome

FILE = "sweep.json"
"""In the folder of each sweep."""
WAITING, FINISHED, FAILED, STOPPED = "waiting", "finished", "failed", "stopped"
NOT_STARTED = "not started"


@dataclass(kw_only=True)
class JobRecord:
    """One job as it stands."""

    name: str
    run: str
    """The folder of its run, in runs_dir."""
    verb: str
    overrides: list[str]
    """Without the user's folders."""
    after: list[str] = field(default_factory=list)
    is_run: bool = True
    """Whether it is one of the sweep's runs; else it makes what several of them share."""
    state: str = WAITING
    """waiting, finished, failed, stopped, not started."""
    exit_code: int | None = None
    attempts: int = 0
    seconds: float = 0.0
    """Of all attempts."""
    log: str | None = None
    """In the sweep's folder."""
    reason: str = ""


@dataclass(kw_only=True)
class SweepRecord:
    """A sweep as it stands. `folder`: its own."""

    folder: Path
    name: str
    verb: str
    command: str
    jobs: list[JobRecord]
    baseline: str | None = None
    """The run that differences are counted from."""
    comparison: str | None = None
    """The page, in the sweep's folder."""
    search: dict[str, Any] | None = None
    """Of `sweep=search`: objective, direction, the trials and the best run."""

    @property
    def runs(self) -> list[JobRecord]:
        return [job for job in self.jobs if job.is_run]

    def job(self, name: str) -> JobRecord:
        return next(job for job in self.jobs if job.name == name)

    def take(self, outcome: Outcome) -> JobRecord:
        """Note how a job ended."""
        job = self.job(outcome.job.name)
        job.state, job.reason = state_of(outcome), outcome.reason
        job.exit_code = outcome.exit_code
        if outcome.exit_code is not None:
            job.attempts += 1
            job.seconds = round(job.seconds + outcome.seconds, 1)
        if outcome.log is not None:
            inside = outcome.log.is_relative_to(self.folder)
            job.log = str(outcome.log.relative_to(self.folder) if inside else outcome.log.name)
        self.write()
        return job

    def skip(self, name: str, exit_code: int) -> None:
        """Note a job whose stages were all done before."""
        job = self.job(name)
        job.state, job.exit_code, job.reason = FINISHED, exit_code, ""

    def write(self) -> None:
        values = asdict(self)
        del values["folder"]
        write_json(self.folder / FILE, signed({"schema": 1, **values}))


def state_of(outcome: Outcome) -> str:
    if outcome.exit_code is None:
        return NOT_STARTED
    if outcome.is_done:
        return FINISHED
    return STOPPED if outcome.is_stopped else FAILED


def new(
    folder: Path, verb: str, command: str, jobs: Sequence[tuple[Job, str]], runs: Iterable[str]
) -> SweepRecord:
    """A record of jobs that wait, with the attempts of a former one. `jobs`: each with the folder
    of its run; `runs`: names of the jobs that are the sweep's runs."""
    former = read(folder)
    records = entries(jobs, {*runs}, former.jobs if former else [])
    return SweepRecord(folder=folder, name=folder.name, verb=verb, command=command, jobs=records)


def entries(
    jobs: Sequence[tuple[Job, str]], runs: Collection[str], former: Iterable[JobRecord]
) -> list[JobRecord]:
    """Jobs that wait, each with its former attempts. `runs`: names of the sweep's runs."""
    known, records = {job.name: job for job in former}, list[JobRecord]()
    for job, run in jobs:
        entry = JobRecord(
            name=job.name,
            run=run,
            verb=job.verb,
            overrides=without_folders(job.overrides),
            after=[*job.after],
            is_run=job.name in runs,
        )
        if (before := known.get(job.name)) is not None:
            entry.attempts, entry.seconds, entry.log = before.attempts, before.seconds, before.log
        records.append(entry)
    return records


def read(folder: Path) -> SweepRecord | None:
    """The record of a sweep's folder; None where it is missing, damaged or of a later version."""
    values = read_signed(folder / FILE)
    if values is None or values.get("schema") != 1:
        return None
    known: dict[str, Any] = {k: v for k, v in values.items() if k not in ("schema", "digest")}
    try:
        jobs = [JobRecord(**job) for job in known.pop("jobs")]
        return SweepRecord(folder=folder, jobs=jobs, **known)
    except (KeyError, TypeError):
        return None


def in_words(job: JobRecord) -> str:
    """`done`, `failed (exit code 1)`, `stopped: to be started again`, `not started: REASON`."""
    if job.state == FINISHED:
        return "done, and a gate said no" if job.exit_code == NOT_PROVEN else "done"
    if job.state == FAILED:
        code = job.exit_code or 0
        ended = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
        return f"failed ({ended})"
    if job.state == STOPPED:
        return "stopped in good order, to be started again"
    return job.state + (f": {job.reason}" if job.reason else "")
