"""Settings of what a training tells of itself. None of them decides what it produces."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class MetricsConfig:
    group_norms_every: int = 1
    """The gradient's norm by group of parameters every so many steps; 0: never. It costs one look at a rank's part of the gradient."""
    peak_tflops: float | None = None
    """TFLOP/s of one device at the training's precision, which MFU is counted from; unset: the published bf16 figure of a known GPU."""

    def problems(self, at: str) -> Iterator[str]:
        if self.group_norms_every < 0:
            yield f"{at}.group_norms_every is {self.group_norms_every}; it must be at least 0; 0 leaves it out"
        if self.peak_tflops is not None and not (
            math.isfinite(self.peak_tflops) and self.peak_tflops > 0
        ):
            yield f"{at}.peak_tflops is {self.peak_tflops}; it must be a positive number; unset it for the published one"


@dataclass(kw_only=True)
class ValidationConfig:
    every: int = 0
    """Held-out loss every so many steps and after the last; 0: never."""
    windows: int = 8
    """Stretches of held-out text; at most `windows_per_document` of one document."""
    windows_per_document: int = 2
    length: int | None = None
    """Tokens of a stretch; unset: data.seq_len."""

    def problems(self, at: str) -> Iterator[str]:
        if self.every < 0:
            yield f"{at}.every is {self.every}; it must be at least 0; 0 leaves validation out"
        for name in ("windows", "windows_per_document"):
            if getattr(self, name) < 1:
                yield f"{at}.{name} is {getattr(self, name)}; it must be at least 1; raise it"
        if self.length is not None and self.length < 2:
            yield f"{at}.length is {self.length}; it must be at least 2 tokens; unset it for data.seq_len"


@dataclass(kw_only=True)
class ProfilerConfig:
    steps: list[int] = field(default_factory=list)
    """First and last step of a window under torch's profiler, whose trace goes to train/profile/; empty: none."""
    ranks: str = "first"
    """first (rank 0) or all."""
    memory: bool = False
    """Also the allocations of a CUDA device."""

    def problems(self, at: str, steps: int) -> Iterator[str]:
        """`steps`: of the training."""
        if self.steps and not (len(self.steps) == 2 and 1 <= self.steps[0] <= self.steps[1]):
            yield f"{at}.steps is {self.steps}; it must be a first and a last step, from 1; e.g. [10, 12]"
        elif self.steps and self.steps[0] > steps:
            yield f"{at}.steps is {self.steps}; the training has {steps} steps, so nothing would be recorded; name earlier ones"
        if self.ranks not in ("first", "all"):
            yield f"{at}.ranks is {self.ranks}; it must be first or all; choose one"
