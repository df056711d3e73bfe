"""Where a step's time goes, by events recorded between its phases.

On a GPU an event is recorded in the stream: nothing waits for it, and a phase is the device's time
between two events, so time in which the host ran ahead costs nothing. On a CPU an event is the
host's clock. Collectives inside forward and backward count as part of those phases: they overlap
with the computation, and only a profiler (train.profiler) can separate them.
"""

import time
from collections import defaultdict
from typing import Any

import torch

PHASES = ("data", "forward", "backward", "optimizer", "wait")


class StepTimer:
    """Seconds of a step by phase.

    `wait` is the time from this rank's end to that of the slowest rank.
    """

    def __init__(self) -> None:
        self.on_gpu = torch.cuda.is_available()
        self.started = time.perf_counter()
        self.events: list[tuple[str, Any]] = [("", self._record())]

    def __call__(self, phase: str) -> None:
        """Count the time since the last event as `phase`."""
        self.events.append((phase, self._record()))

    def _record(self) -> torch.cuda.Event | float:
        if not self.on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds_by_phase(self) -> dict[str, float]:
        """Seconds of each phase so far.

        Waits for the device, so call it once all work of the step is queued.
        """
        seconds: dict[str, float] = defaultdict(float)
        if self.on_gpu:
            self.events[-1][1].synchronize()
        for (_, begin), (phase, end) in zip(self.events, self.events[1:], strict=False):
            seconds[phase] += begin.elapsed_time(end) / 1000 if self.on_gpu else end - begin
        return dict(seconds)

    def elapsed(self) -> float:
        """Seconds since the step began, by the host's clock."""
        return time.perf_counter() - self.started


def with_other(seconds_by_phase: dict[str, float], step_s: float) -> dict[str, float]:
    """Seconds of every phase, and as `other` the rest of the step's `step_s` seconds."""
    named = {phase: seconds_by_phase.get(phase, 0.0) for phase in PHASES}
    return {**named, "other": step_s - sum(named.values())}


def straggler_share(seconds: list[float]) -> float:
    """Share of all ranks' time that is spent waiting for the slowest rank: 1 - mean / max."""
    return 1 - sum(seconds) / len(seconds) / max(seconds) if max(seconds) > 0 else 0.0
