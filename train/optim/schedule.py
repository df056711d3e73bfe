"""Learning rate as a pure function of the step."""

import math

from ropewalk.conf.train import TrainConfig

TIMESCALE = 10_000  # of inverse_sqrt without a warm-up, as in transformers


def lr_at(step: int, config: TrainConfig) -> float:
    """Learning rate of `step` (from 0): linear warm-up that starts above 0, then down to `min_lr_ratio` after the last step.

    After the warm-up these are the factors of transformers' `get_*_schedule` at the same step; in it, those of one step later, since
    theirs spends its first step at 0.
    """
    if step < config.schedule.warmup_steps:
        return config.optimizer.lr * (step + 1) / config.schedule.warmup_steps
    return config.optimizer.lr * (
        config.schedule.min_lr_ratio + (1 - config.schedule.min_lr_ratio) * _factor(step, config)
    )


def _factor(step: int, config: TrainConfig) -> float:
    """1 at the end of the warm-up, 0 after the last step of a schedule that ends."""
    if config.schedule.kind == "constant":
        return 1.0
    if config.schedule.kind == "inverse_sqrt":
        scale = config.schedule.warmup_steps or TIMESCALE
        return math.sqrt(scale / (step - config.schedule.warmup_steps + scale))
    if config.schedule.kind == "wsd":
        return _shape(
            config.schedule.decay_shape,
            _share(step, config.steps - decay_steps(config), config.steps),
        )
    return _shape(config.schedule.kind, _share(step, config.schedule.warmup_steps, config.steps))


def decay_steps(config: TrainConfig) -> int:
    """How many steps at the end of wsd go down."""
    return (
        max(1, config.steps // 10)
        if config.schedule.decay_steps is None
        else config.schedule.decay_steps
    )


def _share(step: int, start: int, end: int) -> float:
    """How much of `start` to `end` is done, from 0 to 1."""
    return min(1.0, max(0, step - start) / max(1, end - start))


def _shape(name: str, done: float) -> float:
    """1 at 0, 0 at 1."""
    if name == "sqrt":
        return 1 - math.sqrt(done)
    return 1 - done if name == "linear" else 0.5 * (1 + math.cos(math.pi * done))
