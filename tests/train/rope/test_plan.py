"""The rope plan: which bases are accepted, which are refused by name, and its JSON."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import LlamaConfig, MistralConfig, Qwen2Config

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import NTKConfig, PIConfig, RopeConfig, Rotary, YarnConfig
from ropewalk.train.rope import plan, table
from ropewalk.train.rope.plan import RopePlan

ACCEPTED = {
    "llama": (LlamaConfig(max_position_embeddings=4096), 1e4, 4096),
    "mistral without a window": (MistralConfig(sliding_window=None), 1e4, 131_072),
    "qwen2": (Qwen2Config(), 1e4, 32_768),
    "own head_dim": (LlamaConfig(hidden_size=96, num_attention_heads=4, head_dim=32), 1e4, 2048),
}


@pytest.mark.parametrize(("config", "theta", "window"), ACCEPTED.values(), ids=ACCEPTED)
def test_a_base_with_one_unscaled_table_is_accepted(config: Any, theta: float, window: int) -> None:
    planned = plan.make(YarnConfig(factor=4.0), config, "the-model")
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    assert (planned.rope_theta, planned.original_max_position_embeddings) == (theta, window)
    assert (planned.max_position_embeddings, len(planned.inv_freq)) == (4 * window, head // 2)


def llama(**settings: Any) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=64, num_attention_heads=2, max_position_embeddings=4096, **settings
    )


def test_an_original_window_above_that_of_pretraining_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match=r"original_max_position_embeddings is 8192; the model was trained at 4096",
    ):
        plan.make(
            YarnConfig(factor=2.0, original_max_position_embeddings=8192), llama(), "the-model"
        )


def test_an_original_window_below_that_of_pretraining_is_used() -> None:
    planned = plan.make(
        YarnConfig(factor=2.0, original_max_position_embeddings=1024), llama(), "the-model"
    )
    windows = (planned.original_max_position_embeddings, planned.max_position_embeddings)
    assert windows == (1024, 2048)
    assert planned.rope_parameters["original_max_position_embeddings"] == 1024


def test_old_form_of_the_theta_is_read() -> None:
    """Checkpoints from before transformers 5 have `rope_theta` at the top of config.json."""
    old = LlamaConfig.from_dict(
        {"rope_theta": 123_456.0, "hidden_size": 64, "num_attention_heads": 2}
    )
    assert plan.make(PIConfig(factor=2.0), old, "the-model").rope_theta == 123_456.0


def test_apply_writes_window_and_parameters() -> None:
    planned = plan.make(YarnConfig(factor=8.0), llama(), "the-model")
    config: Any = plan.apply(planned, llama())
    assert config.max_position_embeddings == 32_768
    assert config.rope_parameters == {
        "rope_type": "yarn",
        "rope_theta": 10_000.0,
        "factor": 8.0,
        "original_max_position_embeddings": 4096,
    }


def test_applied_config_survives_config_json(tmp_path: Path) -> None:
    planned = plan.make(
        YarnConfig(factor=8.0, truncate=False, beta_fast=16.0), llama(), "the-model"
    )
    config: Any = plan.apply(planned, llama())
    config.save_pretrained(tmp_path)
    assert LlamaConfig.from_pretrained(tmp_path).rope_parameters == config.rope_parameters


def test_plan_survives_rope_json(tmp_path: Path) -> None:
    planned = plan.make(NTKConfig(factor=3.0), llama(), "the-model")
    (tmp_path / "rope.json").write_text(json.dumps({**planned.json(), "fingerprint": "x"}))
    assert RopePlan.read(tmp_path / "rope.json") == planned


def test_plan_has_the_keys_that_other_programs_read() -> None:
    keys = {"method", "factor", "rope_theta", "inv_freq", "attention_factor", "rope_parameters"}
    keys |= {"original_max_position_embeddings", "max_position_embeddings", "hash", "schema"}
    assert keys <= set(plan.make(YarnConfig(factor=8.0), llama(), "the-model").json())


def test_the_hash_differs_between_plans_and_does_not_depend_on_the_name() -> None:
    configs = [RopeConfig(), PIConfig(factor=2), NTKConfig(factor=2), YarnConfig(factor=4)]
    changes: list[dict[str, float]] = [{}, {"attention_factor": 1.0}, {"beta_fast": 16}]
    configs += [YarnConfig(factor=2, **change) for change in changes]
    hashes = [plan.make(c, llama(), "one").hash for c in configs]
    assert len(set(hashes)) == len(configs)
    assert hashes == [plan.make(c, llama(), "two").hash for c in configs]


def test_the_unscaled_plan_describes_the_base() -> None:
    planned = plan.make(YarnConfig(factor=8.0), llama(), "the-model").unscaled
    assert (planned.method, planned.factor, planned.attention_factor) == ("none", 1.0, 1.0)
    assert planned.max_position_embeddings == 4096
    assert planned.inv_freq == pytest.approx([10_000 ** (-2 * i / 32) for i in range(16)])
    assert planned.rope_parameters == {"rope_type": "default", "rope_theta": 10_000.0}


def test_the_summary_has_a_line_for_each_dimension() -> None:
    lines = table.summary(plan.make(YarnConfig(factor=8.0), llama(), "the-model")).splitlines()
    assert "yarn x8: 4,096 -> 32,768 tokens" in lines[0]
    assert len(lines) == 3 + 16 + 1
    assert lines[3].split()[-1] == "0%" and lines[-2].split()[-1] == "100%"


def test_the_summary_counts_dimensions_beyond_the_trained_angles() -> None:
    """arXiv 2309.00071, section 3.1: NTK-aware scaling takes slow dimensions out of bounds."""
    d, b, o, s = 32, 1e4, 4096, 8.0
    raised = b * s ** (d / (d - 2))
    turns_seen = [o / (2 * math.pi * b ** (2 * i / d)) for i in range(d // 2)]
    turns_scaled = [s * o / (2 * math.pi * raised ** (2 * i / d)) for i in range(d // 2)]
    beyond = sum(
        t < 1 and later > t * 1.001 for t, later in zip(turns_seen, turns_scaled, strict=True)
    )
    assert beyond > 2
    counts = ((NTKConfig(factor=s), beyond), (PIConfig(factor=s), 0), (YarnConfig(factor=s), 0))
    for rope, count in counts:
        summary = table.summary(plan.make(rope, llama(), "m"))
        assert f"; {count} dimension(s) complete no turn" in summary


def test_the_base_window_itself_is_accepted_as_the_original_one() -> None:
    rope = YarnConfig(factor=2.0, original_max_position_embeddings=4096)
    planned = plan.make(rope, llama(), "the-model")
    assert planned.original_max_position_embeddings == 4096
    assert planned.max_position_embeddings == 8192


@pytest.mark.parametrize(
    ("layer_type", "truncate", "form"),
    [
        (None, True, "yarn"),
        (None, False, "yarn"),
        ("full_attention", True, "yarn"),
        ("full_attention", False, "longrope"),
    ],
)
def test_a_ramp_that_transformers_would_truncate_is_written_number_by_number(
    layer_type: str | None, truncate: bool, form: str
) -> None:
    """It reads `truncate` from the config itself, not from the table of a layer type."""
    rope = YarnConfig(factor=4.0, truncate=truncate)
    rotary = Rotary(32, 1e4, 4096)
    model: Any = SimpleNamespace(
        architecture="a", rotary=rotary, layer_type=layer_type, parameters={}
    )
    assert plan.hf_parameters(rope, rope.table(rotary), model)["rope_type"] == form
