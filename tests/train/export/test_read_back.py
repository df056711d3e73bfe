"""An export as base again: its table is the plan's, or the model is refused with a way out."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import (
    ABFConfig,
    DynamicConfig,
    Llama3Config,
    LongRopeConfig,
    NTKByPartsConfig,
    NTKConfig,
    PIConfig,
    RopeConfig,
    YarnConfig,
)
from ropewalk.train.base import Base, base_config
from ropewalk.train.rope import plan as rope_plan

DIVISORS = [1 + 7 * (i / 7) ** 2 for i in range(8)]
ROPES: dict[str, RopeConfig] = {
    "none": RopeConfig(),
    "raised theta": ABFConfig(factor=8.0),
    "ntk": NTKConfig(factor=8.0),
    "ntk_by_parts": NTKByPartsConfig(factor=8.0),
    "yarn": YarnConfig(factor=8.0),
    "yarn, all keys": YarnConfig(
        factor=8.0, beta_fast=24.0, beta_slow=2.5, attention_factor=1.12, truncate=False
    ),
    "llama3": Llama3Config(factor=8.0),
    "longrope": LongRopeConfig(factor=8.0, long_factor=DIVISORS, attention_factor=1.3),
}
UNREADABLE = {
    "linear": (PIConfig(factor=8.0), "set rope.original_max_position_embeddings"),
    "dynamic": (DynamicConfig(factor=8.0), "rope_type dynamic"),
}


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
def test_the_table_of_an_export_is_the_base_of_the_next(
    rope: RopeConfig, tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    made = export(tiny("llama"), rope, "off")
    again = rope_plan.make(RopeConfig(), base_config(Base(str(made.folder / "hf"))), "again")
    assert again.inv_freq == pytest.approx(made.plan.inv_freq, rel=1e-12)
    assert again.attention_factor == pytest.approx(made.plan.attention_factor, rel=1e-12)
    assert again.max_position_embeddings == made.plan.max_position_embeddings
    short = (made.plan.short_inv_freq, again.short_inv_freq)
    assert (short[0] is None) == (short[1] is None)
    if short[0] is not None:
        assert np.allclose(*short, rtol=1e-12)


@pytest.mark.parametrize(("rope", "way_out"), UNREADABLE.values(), ids=UNREADABLE)
def test_an_export_whose_window_or_form_is_unknown_is_refused(
    rope: RopeConfig, way_out: str, tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    made = export(tiny("llama"), rope, "off")
    with pytest.raises(ConfigError, match=way_out):
        rope_plan.make(YarnConfig(factor=16.0), base_config(Base(str(made.folder / "hf"))), "again")


def test_a_window_that_the_user_names_is_enough_for_linear(
    tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    made = export(tiny("llama"), PIConfig(factor=8.0), "off")
    rope = RopeConfig(original_max_position_embeddings=256)
    again = rope_plan.make(rope, base_config(Base(str(made.folder / "hf"))), "again")
    assert again.inv_freq == pytest.approx(made.plan.inv_freq, rel=1e-12)
