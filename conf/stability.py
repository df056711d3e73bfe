"""What a training does about a loss or gradient that is no number, or that leaps."""

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(kw_only=True)
class StabilityConfig:
    """Each is decided before the optimizer's step, by all ranks alike, from the loss and the gradient norm of the whole batch."""

    on_nan: str = "stop"
    """A loss or gradient that is nan or inf: stop (the step is not taken), skip (go on without this batch), or rollback (to the last
    checkpoint, then again without this batch)."""
    on_spike: str = "ignore"
    """A leap of the loss or the gradient norm: ignore, skip, rollback or stop."""
    spike_window: int = 64
    """Steps before it that a leap is counted from; with fewer than a quarter of them there is none."""
    spike_mads: float = 10.0
    """A leap is above the window's median by more than so many of its deviations (1.4826 x the median of them, of at least 1% of the median)."""
    max_skips: int = 10
    """Batches left out in all; one more stops the training."""

    def problems(self, at: str) -> Iterator[str]:
        for name, choices in (
            ("on_nan", ("stop", "skip", "rollback")),
            ("on_spike", ("ignore", "skip", "rollback", "stop")),
        ):
            if getattr(self, name) not in choices:
                yield f"{at}.{name} is {getattr(self, name)}; it must be one of {', '.join(choices)}; choose one"
        if self.spike_window < 4:
            yield f"{at}.spike_window is {self.spike_window}; it must be at least 4 steps; raise it"
        if self.max_skips < 0:
            yield f"{at}.max_skips is {self.max_skips}; it must be at least 0; raise it"
        if not (math.isfinite(self.spike_mads) and self.spike_mads > 0):
            yield f"{at}.spike_mads is {self.spike_mads}; it must be a positive number; e.g. 10"
