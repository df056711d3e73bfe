"""What a pool of jobs is given, and what it tells: the same on this machine and on a cluster."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from ropewalk.conf.errors import DONE, NOT_PROVEN, STOPPED


@dataclass(frozen=True)
class Job:
    """One command, `ropewalk VERB OVERRIDES`, to be run in the folder that the sweep was typed in.

    Its run's folder and finished stages are where that command leaves them, so a job that is
    started again goes on.
    """

    name: str
    """Of its own among the jobs of a pool, and fit for a file's name."""
    overrides: tuple[str, ...]
    verb: str = "run"
    after: tuple[str, ...] = ()
    """Names of jobs that must have ended well before it starts; they stand before it."""

    @property
    def words(self) -> list[str]:
        """What is typed after `ropewalk`."""
        return [self.verb, *self.overrides]


@dataclass(frozen=True)
class Outcome:
    """How a job ended."""

    job: Job
    exit_code: int | None
    """As in conf.errors, or -N of signal N; None: it was not started."""
    seconds: float = 0.0
    log: Path | None = None
    """What it printed."""
    reason: str = ""
    """Why it was not started, or what its cluster says of its end."""

    @property
    def is_done(self) -> bool:
        """Whether all its stages are finished; a gate may have said no after them."""
        return self.exit_code in (DONE, NOT_PROVEN)

    @property
    def is_stopped(self) -> bool:
        """Whether it ended in good order, to be started again: on request or pre-empted."""
        return self.exit_code == STOPPED


class Pool(Protocol):
    """Where jobs run: on this machine, or in the queue of a cluster."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """Run all jobs, and give the outcome of each as it ends.

        A job that fails stops no other one, except those that come after it, which are not
        started. On SIGINT and SIGTERM the jobs at work are asked to stop, and no other starts;
        every job has an outcome in any case.
        """
        ...


def missing(job: Job, ended: dict[str, Outcome]) -> str:
    """Why a job cannot start any more: the first job before it that did not end well, or empty."""
    for name in job.after:
        if name in ended and ended[name].exit_code != DONE:
            return f"{name} before it did not end well"
    return ""
