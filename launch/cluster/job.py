"""A command within a Slurm job: its attempt is recorded, guarded, and queued again when stopped.

It holds for every job in which `ropewalk` runs, whoever wrote its batch script.
"""

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from ropewalk.conf.errors import DONE, FAILED, STOPPED, RopewalkError
from ropewalk.conf.schema import Config
from ropewalk.launch import interrupt
from ropewalk.launch.cluster import attempts, guard, queue
from ropewalk.launch.cluster.attempts import SlurmJob


@contextmanager
def recorded(config: Config, verb: str, env: Mapping[str, str] = os.environ) -> Iterator[None]:
    """One attempt of the job that this command runs in; nothing outside of a job.

    Raises: RopewalkError when the job makes no progress (guard.py).
    """
    job = SlurmJob.of(env)
    if job is None:
        yield
        return
    run = Path(config.runs_dir).expanduser() / config.name
    os.environ.update(attempts.environment(job, run))
    signal.signal(signal.SIGUSR1, signal.default_int_handler)  # a stage outside of the training
    if not job.is_first:
        job.folder(run).mkdir(parents=True, exist_ok=True)
        yield
        return
    _begin(job, run, config, verb)
    ending = _Ending(job, run, config.launch.slurm.requeue)
    interrupt.LAST_WORDS.append(ending.stopped)
    try:
        yield
        ending(DONE)
    except BaseException as error:
        code = _exit_code(error)
        if code == STOPPED:  # Slurm ends a job that is queued again, and this process ends anyway
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ending(code)
        raise
    finally:
        interrupt.LAST_WORDS.remove(ending.stopped)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, RopewalkError):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED
    return STOPPED if isinstance(error, KeyboardInterrupt) else FAILED


def _begin(job: SlurmJob, run: Path, config: Config, verb: str) -> None:
    """Raises: RopewalkError when the guard says no."""
    now, earlier = attempts.progress(run), attempts.earlier(job, run)
    reason = guard.refusal(earlier, now, config.launch.slurm.max_idle_attempts)
    record = {"verb": verb, "stages": sorted(now.stages), "step": now.step, "began": _time()}
    if reason is not None:
        ended = {"exit_code": FAILED, "trained": now.step, "ended": _time(), "reason": reason}
        attempts.begin(job, run, record | ended)
        raise RopewalkError(f"job {job.id}: {reason}")
    attempts.begin(job, run, record)
    print(f"attempt {job.attempt} of job {job.id} on {job.nodes}; {now}", flush=True)


def _time() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class _Ending:
    """Records how the attempt ended, once, and queues the job again when it was stopped."""

    def __init__(self, job: SlurmJob, run: Path, requeue: bool) -> None:
        self.job, self.run, self.requeue, self.is_recorded = job, run, requeue, False

    def stopped(self) -> None:
        self(STOPPED)

    def __call__(self, code: int) -> None:
        if self.is_recorded:
            return
        self.is_recorded = True
        record = {"exit_code": code, "ended": _time(), "trained": attempts.trained_step(self.run)}
        attempts.end(self.job, self.run, record)
        if code == STOPPED:
            print(f"job {self.job.id}: {self._queued_again()}", flush=True)

    def _queued_again(self) -> str:
        state = queue.own_state(self.job.id)
        if state != "RUNNING":  # cancelled by the user, or queued again by Slurm itself
            return f"it is {state.lower()} now; attempt {self.job.attempt} left its state"
        if not self.requeue:
            return "it ends here (launch.slurm.requeue is false); submit it again to resume"
        return queue.requeue(self.job.id)
