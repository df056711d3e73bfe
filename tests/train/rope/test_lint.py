"""The lint: one finding for each risk; the plans of the papers have no finding."""

from typing import Any

import pytest
from transformers import LlamaConfig

from ropewalk.conf.rope_methods import (
    ABFConfig,
    DynamicConfig,
    LongRopeConfig,
    NTKConfig,
    PIConfig,
    RopeConfig,
    YarnConfig,
)
from ropewalk.train.rope import plan
from ropewalk.train.rope.lint import lint
from ropewalk.train.rope.plan import RopePlan


def planned(rope: RopeConfig, **settings: Any) -> RopePlan:
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "max_position_embeddings": 4096}
    return plan.make(rope, LlamaConfig(**{**sizes, **settings}), "tiny")


def findings(rope_plan: RopePlan, **kwargs: Any) -> list[str]:
    defaults = {"architecture": "llama", "sliding": False, "pretrained": 4096, "steps": 10}
    return lint(rope_plan, **({"seq_len": rope_plan.max_position_embeddings} | defaults | kwargs))


@pytest.mark.parametrize(
    "rope", [RopeConfig(), PIConfig(factor=4), NTKConfig(factor=8), YarnConfig(factor=32)]
)
def test_the_plans_of_the_papers_have_no_finding(rope: RopeConfig) -> None:
    assert findings(planned(rope)) == []


def test_short_sequences_whose_positions_cover_the_plan_have_no_finding() -> None:
    """PoSE trains 2K sequences for 32K."""
    assert findings(planned(YarnConfig(factor=8)), seq_len=2048, pose=32_768) == []


CASES: list[tuple[RopeConfig, dict[str, Any], str]] = [
    (PIConfig(factor=5), {}, "rope.factor is 5; beyond 4 position interpolation crowds"),
    (YarnConfig(factor=33), {}, "135168 tokens are 33 times the window of the base, and beyond"),
    (
        YarnConfig(factor=33),
        {"before": 4095},
        "135168 tokens are 33.01 times the window of the phase before, and beyond 32 in one step",
    ),
    (
        NTKConfig(factor=9),
        {"steps": 0},
        "rope.factor is 9 and train.steps is 0; without fine-tuning NTK-aware",
    ),
    (DynamicConfig(factor=9), {"steps": 0}, "rope.factor is 9 and train.steps is 0"),
    (
        YarnConfig(factor=8),
        {"seq_len": 4096},
        "data.seq_len is 4096; the plan reaches 32768 tokens",
    ),
    (
        YarnConfig(factor=8),
        {"seq_len": 40_000},
        "data.seq_len is 40000; the plan reaches 32768 tokens, so documents longer",
    ),
    (
        RopeConfig(),
        {"seq_len": 8192},
        "data.seq_len is 8192; the plan reaches 4096 tokens, so documents longer",
    ),
    (
        YarnConfig(factor=8),
        {"seq_len": 2048, "pose": 16_384},
        "data.pose.target_length is 16384; the plan reaches 32768 tokens, so positions beyond "
        "16384 are never trained",
    ),
    (
        YarnConfig(factor=8),
        {"seq_len": 2048, "pose": 65_536},
        "data.pose.target_length is 65536; the plan reaches 32768 tokens, so positions beyond "
        "that are trained",
    ),
    (
        YarnConfig(factor=8, original_max_position_embeddings=2048),
        {},
        "original_max_position_embeddings is 2048; its config has 4096: another ramp",
    ),
    (YarnConfig(factor=8), {"sliding": True}, "sliding-window layers that share one rotary table"),
    (DynamicConfig(factor=2), {}, "rope=dynamic switches its table by the longest position"),
    (
        LongRopeConfig(factor=2, long_factor=[2.0] * 16, short_factor=[1.0] * 16),
        {},
        "rope=longrope switches its table by the longest position",
    ),
    (
        LongRopeConfig(factor=2, long_factor=[2.0] * 16),
        {},
        "long_factor and short_factor are the same",
    ),
    (YarnConfig(factor=1.33333), {}, "rounded to 5461"),
    (LongRopeConfig(factor=2, long_factor=[0.5] * 16), {}, "inv_freq[0] rises from 1 to 2"),
    (
        LongRopeConfig(factor=2, long_factor=[8.0] + [1.0] * 15),
        {},
        "frequencies of a rotary table fall",
    ),
]


@pytest.mark.parametrize(
    ("rope", "kwargs", "message"), CASES, ids=lambda x: x if isinstance(x, str) else ""
)
def test_finding(rope: RopeConfig, kwargs: dict[str, Any], message: str) -> None:
    lines = findings(planned(rope), **kwargs)
    assert any(message in line for line in lines), lines
    assert all(";" in line or ":" in line for line in lines)


def test_no_case_has_more_than_two_findings() -> None:
    """A finding that comes with every plan would say nothing."""
    for rope, kwargs, _ in CASES:
        assert len(findings(planned(rope), **kwargs)) <= 2


def test_a_phase_counts_its_step_from_the_phase_before() -> None:
    """ProLong: 8,192 to 65,536, then 524,288."""
    prolong = planned(ABFConfig(factor=64, rope_theta=1.28e8), max_position_embeddings=8192)
    assert findings(prolong, pretrained=8192, before=65_536) == []
    assert "64 times the window of the base" in findings(prolong, pretrained=8192)[0]


def test_a_scaled_base_counts_its_step_from_its_window() -> None:
    """UltraLong-1M: x128 from 8,192 is x8 from Llama 3.1's 131,072."""
    llama = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}
    llama |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    llama |= {"original_max_position_embeddings": 8192}
    ultralong = planned(
        YarnConfig(factor=128.0), rope_parameters=llama, max_position_embeddings=131_072
    )
    assert not any("one step" in line for line in findings(ultralong, pretrained=131_072))


@pytest.mark.parametrize("seq_len", [4096, 65_536])
def test_without_training_every_length_is_accepted(seq_len: int) -> None:
    assert findings(planned(YarnConfig(factor=8)), seq_len=seq_len, steps=0) == []


def test_one_number_for_both_windows_of_a_scaled_base_is_a_finding() -> None:
    yarn = {
        "rope_type": "yarn",
        "rope_theta": 1e4,
        "factor": 4.0,
        "original_max_position_embeddings": 4096,
    }
    lines = findings(planned(YarnConfig(factor=8), rope_parameters=yarn))
    assert len(lines) == 1
    assert "taken as trained at 4096 and read to 16384; if its window is the scaled" in lines[0]
    two = planned(YarnConfig(factor=8), rope_parameters=yarn, max_position_embeddings=16_384)
    assert findings(two, pretrained=16_384) == []
