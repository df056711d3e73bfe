"""The last value that a rule accepts and the first that it refuses, without the other settings."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ropewalk.conf.data import DataConfig
from ropewalk.conf.lora import LoraConfig
from ropewalk.conf.metrics import ProfilerConfig
from ropewalk.conf.rope_methods import Rotary
from ropewalk.conf.rope_methods.base import Table, as_longrope, disagreement, ntk_theta
from ropewalk.conf.rope_methods.longrope import LongRopeConfig
from ropewalk.conf.schema import Config
from ropewalk.conf.sources import SourceConfig
from ropewalk.conf.train import AttentionConfig


@pytest.mark.parametrize(
    ("steps", "good"),
    [
        ([], True),
        ([1, 1], True),
        ([20, 30], True),
        ([0, 3], False),
        ([3, 2], False),
        ([3], False),
        ([21, 22], False),
    ],
)
def test_the_window_of_the_profiler(steps: list[int], good: bool) -> None:
    problems = list(ProfilerConfig(steps=steps).step_problems("profiler.", 20))
    assert (problems == []) == good


@pytest.mark.parametrize(("length", "good"), [(2, False), (3, True)])
def test_boundary_tokens_leave_room_for_text(length: int, good: bool) -> None:
    source = SourceConfig(path="books", piece_len=length)
    data = DataConfig(seq_len=64, min_piece=1, begin="bos", end="eos", sources={"books": source})
    problems = [p for p in data.problems("data.") if "leave no room" in p]
    assert (problems == []) == good


def test_an_adapter_without_a_rank_has_no_settings() -> None:
    assert list(LoraConfig(rank=0).problems("lora.")) == []
    assert list(LoraConfig(rank=0, alpha=3.0).problems("lora.")) != []
    assert list(LoraConfig(rank=4, alpha=3.0).problems("lora.")) == []


def test_tokens_of_a_ramp_that_the_training_does_not_reach() -> None:
    """Ten steps of 8 tokens; the first change comes at step 5, the second after the end."""
    train = SimpleNamespace(steps=10, batch_ramp=[(5, 16), (20, 32)])
    config: Any = SimpleNamespace(train=train, global_batch_tokens=8)
    config.batches = lambda: Config.batches(config)
    tokens: Any = vars(Config)["tokens"]
    assert tokens.fget(config) == 4 * 8 + 6 * 16


def test_longrope_scales_nothing_at_factor_1() -> None:
    """transformers' longrope: the attention factor is 1 for a factor of at most 1."""
    config = LongRopeConfig(factor=1.0, long_factor=[1.0] * 16)
    assert config.table(Rotary(32, 1e4, 64)).attention_factor == 1.0


@pytest.mark.parametrize(
    ("group", "good"), [(None, True), (0, False), (1, False), (2, True), (3, False), (4, True)]
)
def test_a_group_of_s2_attention_is_shifted_by_half_of_it(group: int | None, good: bool) -> None:
    problems = list(AttentionConfig(s2_group=group).problems("train.attention."))
    assert (problems == []) == good


def test_the_slowest_dimension_of_ntk_is_divided_by_the_factor_and_the_fastest_kept() -> None:
    """theta^(-(d - 2) / d) of the new theta, d = 8: the last of the four frequencies."""
    theta = ntk_theta(10_000.0, 4.0, 8)
    assert theta ** (-6 / 8) == pytest.approx(10_000 ** (-6 / 8) / 4)
    assert theta == pytest.approx(10_000 * 4 ** (8 / 6))


def test_a_table_as_longrope_has_its_divisors_twice() -> None:
    """theta 10,000 and 8 dimensions: 1, 0.1, 0.01, 0.001, divided by 1, 2, 4 and 4."""
    table = Table(np.array([1.0, 0.05, 0.0025, 0.00025]), 1.25)
    made = as_longrope(table, 4.0, Rotary(8, 1e4, 64))
    assert made["long_factor"] == made["short_factor"] == pytest.approx([1, 2, 4, 4])
    assert (made["attention_factor"], made["factor"], made["rope_theta"]) == (1.25, 4.0, 1e4)
    assert made["original_max_position_embeddings"] == 64 and made["rope_type"] == "longrope"


@pytest.mark.parametrize(("target", "agrees"), [(256, True), (255, False), (257, False)])
def test_factor_and_target_length_lead_to_one_window(target: int, agrees: bool) -> None:
    assert (list(disagreement(4.0, target, 64)) == []) is agrees
    assert list(disagreement(math.inf, target, 64)) == []
    assert list(disagreement(4.002, 256, 64)) == []  # 256.1 tokens are 256
