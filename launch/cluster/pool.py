"""Jobs of a sweep as arrays of Slurm: those that others need first, then the rest."""

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ropewalk.conf.errors import STOPPED
from ropewalk.conf.launchers import LaunchConfig
from ropewalk.launch.cluster import follow, queue, submission
from ropewalk.launch.cluster.queue import JobState
from ropewalk.launch.cluster.script import Task, batch_script
from ropewalk.launch.cluster.submission import Script
from ropewalk.launch.cluster.words import job_words, shell_command
from ropewalk.launch.sweep.jobs import Job, Outcome

DATA = "data"
STOPPING = "stopping: the jobs are cancelled, and those at work save first"


@dataclass
class SlurmPool:
    """A pool in the queue of Slurm. `folder`: of its scripts, and of what the jobs print."""

    launch: LaunchConfig
    folder: Path
    poll_s: float = follow.POLL_S
    ids: dict[str, str] = field(default_factory=dict, init=False)
    """Of Slurm, by the job's name: `17`, or `17_3` of an array."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        """As in `Pool`. Raises: ConfigError when Slurm refuses a script, before any is queued."""
        self._submit(jobs)
        waiting = {self.ids[job.name]: job for job in jobs}
        with self._cancelled_by_signals():
            while waiting:
                yield from self._ended(waiting)
                if waiting:
                    time.sleep(self.poll_s)

    def _submit(self, jobs: Sequence[Job]) -> None:
        arrays = grouped(jobs)
        scripts = [self._script(number, array) for number, array in enumerate(arrays)]
        self.folder.mkdir(parents=True, exist_ok=True)
        submission.write(scripts, self.folder)
        for script in scripts:
            queue.refuse_impossible(self.folder / script.file)
        for script, array in zip(scripts, arrays, strict=True):
            after = [self.ids[name] for name in array[0].after]
            job_id = queue.submit(self.folder / script.file, after)
            for number, job in enumerate(array):
                self.ids[job.name] = f"{job_id}_{number}" if len(array) > 1 else job_id
            names = ", ".join(job.name for job in array)
            print(f"submitted job {job_id} ({self.folder / script.file}): {names}", flush=True)

    def _script(self, number: int, array: Sequence[Job]) -> Script:
        """One script for jobs that need the same others."""
        is_data = array[0].verb == DATA
        commands = [
            shell_command(job_words(job.verb, job.overrides, self.launch, is_data), self.launch)
            for job in array
        ]
        name = f"{number + 1}-{array[0].verb}"
        task = Task(f"{self.folder.name}-{name}", tuple(commands), on_gpus=not is_data)
        return Script(name, batch_script(self.launch, task, str(self.folder.absolute())))

    def _ended(self, waiting: dict[str, Job]) -> list[Outcome]:
        """The outcomes of jobs that ended since the last look; they leave `waiting`."""
        arrays = {job_id.partition("_")[0] for job_id in waiting}
        shown = {state.id: state for state in queue.states(sorted(arrays))}
        outcomes = []
        for job_id, job in [*waiting.items()]:
            state = shown.get(job_id)
            if state is None or state.has_ended:
                outcomes.append(self._outcome(job, job_id, state))
                del waiting[job_id]
        return outcomes

    def _outcome(self, job: Job, job_id: str, state: JobState | None) -> Outcome:
        log = self.folder / f"job-{job_id}.log"
        if state is None:
            return Outcome(job, None, log=log, reason=f"Slurm knows job {job_id} no more")
        if state.name == "CANCELLED" and not state.nodes:
            return Outcome(job, None, reason=f"job {job_id} was cancelled ({state.reason})")
        code = STOPPED if state.name == "CANCELLED" else follow.exit_code(state)
        again = f"queued again {state.restarts} times" if state.restarts else ""
        ended = "" if state.name == "COMPLETED" else f"job {job_id} {state.name.lower()}"
        reason = ", ".join(filter(None, (ended, again)))
        return Outcome(job, code, float(state.seconds), log, reason)

    @contextmanager
    def _cancelled_by_signals(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._cancel) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _cancel(self, *_: object) -> None:
        print(STOPPING, file=sys.stderr, flush=True)
        queue.cancel(sorted({job_id.partition("_")[0] for job_id in self.ids.values()}))


def grouped(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs of one verb that come after the same others, as one array each, in their order."""
    arrays: dict[tuple[object, ...], list[Job]] = {}
    for job in jobs:
        arrays.setdefault((job.verb == DATA, job.verb, job.after), []).append(job)
    return [*arrays.values()]
