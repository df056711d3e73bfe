"""The printed tables of plans, by hand for four frequencies."""

import math

from transformers import LlamaConfig

from ropewalk.conf.rope_methods import NTKConfig, PIConfig
from ropewalk.train.rope import plan as plans
from ropewalk.train.rope import table

BASE = LlamaConfig(hidden_size=16, num_attention_heads=2, max_position_embeddings=256)


def test_each_frequency_has_its_wavelength_rotations_and_share() -> None:
    """theta 10,000 and 8 dimensions: 1, 0.1, 0.01 and 0.001 radians a token."""
    made = [plans.make(method(factor=4.0), BASE, "base") for method in (PIConfig, NTKConfig)]
    lines = table.comparison_table(made).splitlines()
    rows = [line.split() for line in lines if line.strip()[:1].isdigit()]
    for number, (dim, wavelength, rotations, pi, _) in enumerate(rows):
        tokens = 2 * math.pi * 10**number
        assert (int(dim), float(wavelength.replace(",", ""))) == (number, round(tokens, 1))
        assert float(rotations) == round(256 / tokens, 2) and pi == "100%"
    assert len(rows) == 4
    # NTK-aware: the first frequency is kept, the last is divided by the factor
    assert (rows[0][4], rows[-1][4]) == ("0%", "100%")


def test_a_factor_of_one_interpolates_nothing() -> None:
    one = plans.make(PIConfig(factor=1.0), BASE, "base")
    assert table.interpolated_share(one).tolist() == [0, 0, 0, 0]


def test_a_plan_of_before_has_no_factor_of_the_softmax() -> None:
    made = plans.make(PIConfig(factor=2.0), BASE, "base")
    content = {key: value for key, value in made.json().items() if key != "softmax_factor"}
    assert plans.RopePlan.from_json(content).softmax_factor == 1
