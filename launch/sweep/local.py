"""Jobs as processes of this machine, a number of them at once."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from ropewalk.conf.errors import STOPPED
from ropewalk.launch.sweep import process
from ropewalk.launch.sweep.jobs import Job, Outcome, missing

STOPPING = "stopping: the runs at work are asked to save and end (once more: at once)"


class Running(NamedTuple):
    """A job at work."""

    job: Job
    process: BaseProcess
    started: float


@dataclass
class LocalPool:
    """A pool of `size` processes. `logs`: the folder of NAME.log of each job."""

    size: int
    logs: Path
    command: process.Command = process.ropewalk
    environments: list[dict[str, str]] = field(default_factory=list)
    """Variables of the jobs in each place of the pool."""
    stops: int = field(default=0, init=False)
    """How often it was asked to stop."""
    running: dict[int, Running] = field(default_factory=dict, init=False)
    """By place, from 0."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """As in `Pool`."""
        self.logs.mkdir(parents=True, exist_ok=True)
        waiting, ended = list(jobs), dict[str, Outcome]()
        with self._stopped_by_signals():
            try:
                while waiting or self.running:
                    for outcome in self._advance(waiting, ended):
                        ended[outcome.job.name] = outcome
                        yield outcome
            finally:
                self._kill()

    def _advance(self, waiting: list[Job], ended: dict[str, Outcome]) -> list[Outcome]:
        """Start what can start; else wait until a job ends."""
        for job in [*waiting]:
            reason = "the sweep was stopped" if self.stops else missing(job, ended)
            if reason:
                waiting.remove(job)
                return [Outcome(job, None, reason=reason)]
            if len(self.running) < self.size and all(name in ended for name in job.after):
                waiting.remove(job)
                self._start(job)
        return self._ended()

    def _log(self, job: Job) -> Path:
        return self.logs / f"{job.name}.log"

    def _start(self, job: Job) -> None:
        place = next(n for n in range(self.size) if n not in self.running)
        variables = self.environments[place] if self.environments else {}
        child = process.start(job.words, self._log(job), variables, self.command)
        self.running[place] = Running(job, child, time.monotonic())
        if self.stops:  # asked meanwhile
            _signal(child, signal.SIGTERM)

    def _ended(self) -> list[Outcome]:
        """The outcomes of jobs that have ended; waits for one, or for a signal."""
        ready = wait([running.process.sentinel for running in self.running.values()])
        outcomes = []
        for place, (job, child, started) in [*self.running.items()]:
            if child.sentinel in ready:
                child.join()
                seconds = round(time.monotonic() - started, 1)
                code = self._exit_code(child)
                outcomes.append(Outcome(job, code, seconds, self._log(job)))
                del self.running[place]
        return outcomes

    def _exit_code(self, child: BaseProcess) -> int | None:
        """A job that was asked to stop before it could notice has stopped all the same."""
        early = self.stops and child.exitcode in (-signal.SIGTERM, -signal.SIGINT)
        return STOPPED if early else child.exitcode

    @contextmanager
    def _stopped_by_signals(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, *_: object) -> None:
        self.stops += 1
        with suppress(OSError):  # the terminal may be closed
            print(STOPPING, file=sys.stderr, flush=True)
        for running in [*self.running.values()]:
            _signal(running.process, signal.SIGTERM)

    def _kill(self) -> None:
        """What is still at work when the sweep itself ends by an error."""
        for running in self.running.values():
            _signal(running.process, signal.SIGKILL)


def _signal(child: BaseProcess, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(child.pid or 0, number)
