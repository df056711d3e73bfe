"""The learning rate against transformers' own schedules."""

import math
from typing import Any

import pytest
import torch
from train_settings import train_config
from transformers import optimization

from ropewalk.conf.train import TrainConfig
from ropewalk.train.optim.schedule import lr_at

STEPS, WARM = 110, 10


def config(**changes: Any) -> TrainConfig:
    return train_config(
        **{"steps": STEPS, "optimizer__lr": 1.0, "schedule__warmup_steps": WARM, **changes}
    )


def theirs(make: str, **overrides: Any) -> list[float]:
    """Factors of steps 0 to STEPS by transformers' function `make`."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = getattr(optimization, make)(optimizer, num_warmup_steps=WARM, **overrides)
    result = []
    for _ in range(STEPS + 1):
        result.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return result


SAME = {
    "constant": ("get_constant_schedule_with_warmup", {}),
    "linear": ("get_linear_schedule_with_warmup", {"num_training_steps": STEPS}),
    "cosine": ("get_cosine_schedule_with_warmup", {"num_training_steps": STEPS}),
    "inverse_sqrt": ("get_inverse_sqrt_schedule", {}),
}


@pytest.mark.parametrize("schedule", SAME)
def test_schedules_equal_transformers_with_a_warm_up_above_zero(
    schedule: str,
) -> None:
    make, overrides = SAME[schedule]
    factors, ours = (
        theirs(make, **overrides),
        [lr_at(step, config(schedule__kind=schedule)) for step in range(STEPS)],
    )
    assert ours[:WARM] == pytest.approx(factors[1 : WARM + 1], rel=1e-12)
    assert ours[WARM:] == pytest.approx(factors[WARM:STEPS], rel=1e-12)
    assert min(ours) > 0


@pytest.mark.parametrize(
    ("shape", "name"), [("linear", "linear"), ("sqrt", "1-sqrt"), ("cosine", "cosine")]
)
def test_wsd_equals_transformers(shape: str, name: str) -> None:
    ours = [
        lr_at(
            step,
            config(
                schedule__kind="wsd",
                schedule__decay_steps=25,
                schedule__decay_shape=shape,
                schedule__min_lr_ratio=0.1,
            ),
        )
        for step in range(STEPS)
    ]
    factors = theirs(
        "get_wsd_schedule",
        num_training_steps=STEPS,
        num_decay_steps=25,
        decay_type=name,
        min_lr_ratio=0.1,
    )
    assert ours[WARM:] == pytest.approx(factors[WARM:STEPS], rel=1e-12)
    assert ours[WARM : STEPS - 25] == [1.0] * (STEPS - 25 - WARM) and ours[-1] < 0.2


def test_wsd_decays_over_a_tenth_of_the_steps_by_default() -> None:
    ours = [lr_at(step, config(schedule__kind="wsd")) for step in range(STEPS)]
    assert ours[STEPS - 12 :] == pytest.approx([1.0, 1.0] + [1 - n / 11 for n in range(1, 11)])


def test_warm_up_starts_above_zero_and_reaches_the_peak() -> None:
    assert [lr_at(step, config()) for step in (0, 9, 10)] == pytest.approx([0.1, 1.0, 1.0])


def test_the_rate_ends_at_min_lr_ratio() -> None:
    assert lr_at(
        10_000, config(schedule__kind="cosine", schedule__min_lr_ratio=0.1)
    ) == pytest.approx(0.1)
    half = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 2))
    assert lr_at(60, config(schedule__kind="cosine", schedule__min_lr_ratio=0.1)) == pytest.approx(
        half
    )


def test_a_schedule_without_a_warm_up_starts_at_the_peak() -> None:
    assert lr_at(0, config(schedule__warmup_steps=0, schedule__kind="linear")) == 1.0
    assert lr_at(
        10_000, config(schedule__warmup_steps=0, schedule__kind="inverse_sqrt")
    ) == pytest.approx(math.sqrt(0.5))
