"""Learning rate as a pure function of the step."""

import math

from ropewalk.conf.training import TrainConfig


def lr_at(step: int, config: TrainConfig) -> float:
    """Learning rate of `step` (from 0): linear warm-up that starts above 0, then down to `min_lr_ratio` at the last step."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    span = max(1, config.steps - config.warmup_steps)
    done = min(1.0, (step - config.warmup_steps) / span)
    return config.lr * (config.min_lr_ratio + (1 - config.min_lr_ratio) * _shape(config.schedule, done))


def _shape(schedule: str, done: float) -> float:
    """1 at the end of the warm-up, 0 after the last step."""
    if schedule == "constant":
        return 1.0
    return 1 - done if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
