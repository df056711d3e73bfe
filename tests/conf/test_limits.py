"""The last value that a rule accepts and the first that it refuses, without the other settings."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ropewalk.conf.data import DataConfig
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.lora import LoraConfig
from ropewalk.conf.metrics import ProfilerConfig
from ropewalk.conf.model import ScratchConfig
from ropewalk.conf.rope_methods import Llama3Config, PIConfig, Rotary, TableConfig
from ropewalk.conf.rope_methods.base import Table, as_longrope, disagreement, ntk_theta
from ropewalk.conf.rope_methods.longrope import LongRopeConfig
from ropewalk.conf.schema import Config
from ropewalk.conf.sources import SourceConfig
from ropewalk.conf.train import AttentionConfig, TrainConfig


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


def test_llama3s_ramp_is_linear_in_the_rotations() -> None:
    """Frequencies 1, 0.1, 0.01, 0.001; in 1,024 tokens 163, 16.3, 1.63 and 0.16 rotations: two are
    kept, the third is (1.6297 - 1) / 3 of the way from an eighth, the last is divided by eight."""
    made = Llama3Config(factor=8.0).table(Rotary(8, 1e4, 1024)).inv_freq
    smooth = (1024 * 0.01 / (2 * math.pi) - 1) / 3
    third = 0.01 / 8 + smooth * (0.01 - 0.01 / 8)
    assert made == pytest.approx([1, 0.1, third, 0.001 / 8])


def test_a_table_has_a_frequency_for_two_dimensions(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text('{"inv_freq": [1, 0.1, 0.01, 0.001]}')
    given = TableConfig(path=str(tmp_path / "t.json"))
    assert given.table(Rotary(8, 1e4, 64)).inv_freq.tolist() == [1, 0.1, 0.01, 0.001]
    for dim in (2, 4, 10, 16):
        with pytest.raises(ConfigError, match=f"has 4 frequencies, the model {dim // 2};"):
            given.table(Rotary(dim, 1e4, 64))


@pytest.mark.parametrize(
    ("target", "original", "good"), [(1, None, True), (9, 8, True), (8, 8, False), (0, None, False)]
)
def test_a_target_is_longer_than_the_original_window(
    target: int, original: int | None, good: bool
) -> None:
    one = PIConfig(target_length=target, original_max_position_embeddings=original)
    assert (not any("must be longer" in line for line in one.problems("rope."))) is good


@pytest.mark.parametrize(
    ("hostfile", "ranks", "good"),
    [(None, 4, True), (None, 3, False), (None, None, True), ("hosts", 3, True)],
)
def test_ranks_are_counted_here_unless_they_run_elsewhere(
    hostfile: str | None, ranks: int | None, good: bool
) -> None:
    train: Any = SimpleNamespace(
        launcher=SimpleNamespace(hostfile=hostfile, ranks_per_node=ranks),
        memory=SimpleNamespace(offload_path=None),
        sp_size=2,
    )
    assert (list(TrainConfig._rank_problems(train, "train.")) == []) is good


def test_one_head_too_needs_an_even_number_of_dimensions() -> None:
    sizes: dict[str, Any] = {"vocab_size": 300, "intermediate_size": 8, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 8}
    assert not list(ScratchConfig(hidden_size=6, **sizes).problems(""))
    (problem,) = ScratchConfig(hidden_size=5, **sizes).problems("")
    assert "hidden_size 5 must be a multiple of twice that" in problem
