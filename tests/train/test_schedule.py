import math

import pytest

from ropewalk.conf.training import TrainConfig
from ropewalk.train.schedule import lr_at


def config(**changes):
    return TrainConfig(**{"steps": 110, "lr": 1.0, "warmup_steps": 10, **changes})


def test_warm_up_starts_above_zero_and_reaches_the_peak():
    assert lr_at(0, config()) == pytest.approx(0.1)
    assert lr_at(9, config()) == pytest.approx(1.0)
    assert lr_at(10, config()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("schedule", "middle"), [("constant", 1.0), ("linear", 0.5), ("cosine", 0.5 * (1 + math.cos(math.pi / 2)))]
)
def test_half_way(schedule, middle):
    assert lr_at(60, config(schedule=schedule)) == pytest.approx(middle)


def test_linear_never_reaches_zero_inside_the_run():
    assert 0 < lr_at(109, config(schedule="linear")) <= 0.011


def test_floor():
    assert lr_at(10_000, config(schedule="cosine", min_lr_ratio=0.1)) == pytest.approx(0.1)


def test_no_warm_up():
    assert lr_at(0, config(warmup_steps=0, schedule="linear")) == 1.0
