"""Learning rate as a pure function of the step."""

import math

from ropewalk.conf.train import TrainConfig

TIMESCALE = 10_000  # of inverse_sqrt without a warm-up, as in transformers


def lr_at(step: int, config: TrainConfig) -> float:
    """Learning rate of `step` (from 0): linear warm-up, then decay to `min_lr_ratio` after the
    last step.

    After the warm-up the factors equal those of transformers' `get_*_schedule` at the same step;
    in the warm-up, those of one step later, since theirs spends its first step at 0.
    """
    if step < config.schedule.warmup_steps:
        return config.optimizer.lr * (step + 1) / config.schedule.warmup_steps
    return config.optimizer.lr * (
        config.schedule.min_lr_ratio + (1 - config.schedule.min_lr_ratio) * _factor(step, config)
    )


def _factor(step: int, config: TrainConfig) -> float:
    """1 at the end of the warm-up, 0 after the last step; constant and inverse_sqrt do not end."""
    if config.schedule.kind == "constant":
        return 1.0
    if config.schedule.kind == "inverse_sqrt":
        scale = config.schedule.warmup_steps or TIMESCALE
        return math.sqrt(scale / (step - config.schedule.warmup_steps + scale))
    if config.schedule.kind == "wsd":
        decay_start = config.steps - decay_steps(config)
        return _decay(config.schedule.decay_shape, _progress(step, decay_start, config.steps))
    return _decay(config.schedule.kind, _progress(step, config.schedule.warmup_steps, config.steps))


def decay_steps(config: TrainConfig) -> int:
    """How many steps at the end of wsd decay."""
    return (
        max(1, config.steps // 10)
        if config.schedule.decay_steps is None
        else config.schedule.decay_steps
    )


def _progress(step: int, start: int, end: int) -> float:
    """The position of `step` between `start` (0) and `end` (1)."""
    return min(1.0, max(0, step - start) / max(1, end - start))


def _decay(shape: str, progress: float) -> float:
    """1 at progress 0, 0 at progress 1."""
    if shape == "sqrt":
        return 1 - math.sqrt(progress)
    if shape == "linear":
        return 1 - progress
    return 0.5 * (1 + math.cos(math.pi * progress))
