"""Whether a job that starts again may go on: a pure function of what its attempts reached."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """What of a run is kept for its next attempt."""

    stages: frozenset[str] = frozenset()
    """Finished stages, those of earlier phases with their folder: `phases/1-short/train`."""
    step: int = 0
    """Of the newest checkpoint of the training that is not finished; 0: none."""

    def is_beyond(self, earlier: "Progress") -> bool:
        """Whether there is a stage or a step more than there was."""
        return bool(self.stages - earlier.stages) or self.step > earlier.step

    def __str__(self) -> str:
        stages = ", ".join(sorted(self.stages)) or "none"
        return f"finished stages: {stages}; newest checkpoint: step {self.step}"


@dataclass(frozen=True)
class Attempt:
    """One start of a job."""

    number: int
    """From 1; Slurm's count of restarts plus 1."""
    start: Progress
    exit_code: int | None = None
    """None: it ended without a word, by a signal or with its node, or is at work."""
    trained: int = 0
    """Steps that it trained to, also without a checkpoint."""


def idle_attempts(earlier: Sequence[Attempt], now: Progress) -> list[Attempt]:
    """The last attempts in a row that left nothing more than they began with, oldest first."""
    idle: list[Attempt] = []
    after = now
    for attempt in reversed(earlier):
        if after.is_beyond(attempt.start):
            break
        idle.insert(0, attempt)
        after = attempt.start
    return idle


def refusal(earlier: Sequence[Attempt], now: Progress, limit: int) -> str | None:
    """Why the job stops before its next attempt; None: it goes on.

    `earlier`: the attempts of the same job, in order. `limit`: attempts in a row that may leave
    nothing new.
    """
    idle = idle_attempts(earlier, now)
    if len(idle) < limit:
        return None
    last = idle[-1]
    numbers = ", ".join(str(attempt.number) for attempt in idle)
    return (
        f"attempt {last.number + 1} would begin where attempt {numbers} began ({now}); a job that "
        "restarts without a new step in a checkpoint, or a newly finished stage, stops; "
        f"{_way_out(last, now)}, then submit it again, or raise launch.slurm.max_idle_attempts "
        f"({limit})"
    )


def _way_out(last: Attempt, now: Progress) -> str:
    """What to change, by how the last attempt ended."""
    if last.trained > now.step:
        return (
            f"attempt {last.number} trained to step {last.trained} and kept no checkpoint of it: "
            "lower train.checkpoint.interval_steps"
        )
    if last.exit_code is None:
        return f"attempt {last.number} ended without a word: read the end of its log"
    return (
        f"attempt {last.number} was stopped before its first new step (exit code "
        f"{last.exit_code}): raise launch.slurm.time_limit, or read its log"
    )
