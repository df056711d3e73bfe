"""Jobs of a sweep as arrays of Slurm: those that others need first, then the rest."""

import shlex
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
    """A pool in the queue of Slurm. `folder`: of its scripts. `logs`: of NAME.log of each job."""

    launch: LaunchConfig
    name: str
    """Of its jobs in the queue."""
    folder: Path
    logs: Path
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

    def show(self, jobs: Sequence[Job]) -> None:
        """Print and write the scripts; nothing is submitted."""
        self.logs.mkdir(parents=True, exist_ok=True)
        for path in submission.write(self._scripts(grouped(jobs)), self.folder):
            print(f"--- {path}\n{path.read_text()}", end="")
        print(f"wrote {self.folder}; submit it with {self.folder / submission.SUBMIT}")

    def _submit(self, jobs: Sequence[Job]) -> None:
        arrays = grouped(jobs)
        scripts = self._scripts(arrays)
        self.logs.mkdir(parents=True, exist_ok=True)
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

    def _scripts(self, arrays: Sequence[Sequence[Job]]) -> list[Script]:
        """One for each array."""
        names = [f"{number}-{array[0].verb}" for number, array in enumerate(arrays, 1)]
        named = [*zip(names, arrays, strict=True)]
        script_of = {job.name: name for name, array in named for job in array}
        return [
            Script(
                name,
                batch_script(self.launch, self._task(name, array), str(self.folder.absolute())),
                tuple(dict.fromkeys(script_of[needed] for needed in array[0].after)),
            )
            for name, array in named
        ]

    def _task(self, name: str, array: Sequence[Job]) -> Task:
        is_data = array[0].verb == DATA
        commands = tuple(self._command(job, is_data) for job in array)
        return Task(f"{self.name}-{name}", commands, on_gpus=not is_data)

    def _command(self, job: Job, is_data: bool) -> str:
        """Attempts follow each other in the job's log."""
        words = job_words(job.verb, job.overrides, self.launch, is_data)
        log = shlex.quote(str((self.logs / f"{job.name}.log").absolute()))
        return f"{shell_command(words, self.launch)} >> {log} 2>&1"

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
        log = self.logs / f"{job.name}.log"
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
