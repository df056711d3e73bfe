"""Settings of what a training tells of itself. None of them decides what it produces."""

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(kw_only=True)
class SeeingConfig:
    group_norms_every: int = 1
    """The gradient's norm by group of parameters every so many steps; 0: never. It costs one look at a rank's part of the gradient."""
    peak_tflops: float | None = None
    """TFLOP/s of one device at the training's precision, which MFU is counted from; unset: the published bf16 figure of a known GPU."""

    def problems(self, at: str) -> Iterator[str]:
        if self.group_norms_every < 0:
            yield f"{at}.group_norms_every is {self.group_norms_every}; it must be at least 0; 0 leaves it out"
        if self.peak_tflops is not None and not (math.isfinite(self.peak_tflops) and self.peak_tflops > 0):
            yield f"{at}.peak_tflops is {self.peak_tflops}; it must be a positive number; unset it for the published one"
