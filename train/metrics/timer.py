"""Where a step's time goes, by marks between its phases.

On a GPU a mark is an event in the stream: nothing waits for it, and a phase is what the device spent between two of them, so time in which
the host ran ahead costs nothing. Without one a mark is the host's clock. Collectives inside forward and backward are part of those phases:
they overlap with the work, and only a profiler (train.profile) can tell them apart.
"""

import time
from collections import defaultdict
from typing import Any

import torch

PHASES = ("data", "forward", "backward", "optimizer", "wait")


class StepTimer:
    """Seconds of a step by phase. `wait` is the time from a rank's own end to that of the slowest."""

    def __init__(self) -> None:
        self.device = torch.cuda.is_available()
        self.started = time.perf_counter()
        self.marks: list[tuple[str, Any]] = [("", self._now())]

    def __call__(self, phase: str) -> None:
        """All since the last mark was `phase`."""
        self.marks.append((phase, self._now()))

    def _now(self) -> Any:
        if not self.device:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self) -> dict[str, float]:
        """By phase, so far. Waits for the device: asked for once a step, when all of its work is queued."""
        found: dict[str, float] = defaultdict(float)
        if self.device:
            self.marks[-1][1].synchronize()
        for (_, begin), (phase, end) in zip(self.marks, self.marks[1:], strict=False):
            found[phase] += begin.elapsed_time(end) / 1000 if self.device else end - begin
        return dict(found)

    def elapsed(self) -> float:
        """Seconds since the step began, by the host."""
        return time.perf_counter() - self.started


def with_other(phases: dict[str, float], whole: float) -> dict[str, float]:
    """The parts of a step of `whole` seconds; what no phase has is `other`, so that they sum to it."""
    named = {phase: phases.get(phase, 0.0) for phase in PHASES}
    return {**named, "other": whole - sum(named.values())}


def straggler_share(seconds: list[float]) -> float:
    """Share of all ranks' time that is waiting for the slowest: 1 - mean / max."""
    return 1 - sum(seconds) / len(seconds) / max(seconds) if max(seconds) > 0 else 0.0
