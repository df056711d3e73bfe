"""Architectures of transformers: rescaled, saved, reloaded, proved each time; others refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rope_models import (
    HANDLED,
    LLAMA,
    METHODS_WITHOUT_A_FILE,
    MLA,
    TWO_KINDS,
    config_of,
    settings,
)
from transformers import AutoModelForCausalLM, PreTrainedConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import (
    DynamicConfig,
    LongRopeConfig,
    RopeConfig,
    YarnConfig,
)
from ropewalk.train.base import Base, base_config
from ropewalk.train.rope import plan, proof

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "gpt2 (learned)": ("GPT2", {}, "gpt2 has no rotary position embedding"),
    "bloom (alibi)": ("Bloom", {}, "bloom has no rotary position embedding"),
    "falcon with alibi": ("Falcon", {"alibi": True}, "falcon has no rotary position embedding"),
    "gpt-j": (
        "GPTJ",
        {"rotary_dim": 8},
        "gptj has rotary positions that its config does not describe",
    ),
    "codegen": ("CodeGen", {}, "codegen has rotary positions that its config does not describe"),
    "llama 4": ("Llama4Text", {}, "llama4_text attends in chunks"),
    "cohere 2": ("Cohere2", TWO_KINDS, "cohere2 has RoPE in its sliding-window layers only"),
    "exaone 4": ("Exaone4", TWO_KINDS, "exaone4 has RoPE in its sliding-window layers only"),
    "phi 3.5 moe": ("Phimoe", {}, "phimoe scales its table by short_mscale and long_mscale"),
    "mistral, all layers sliding": (
        "Mistral",
        {"sliding_window": 64},
        "sliding-window attention of 64 tokens in every layer",
    ),
    "gemma 3 with vision": ("Gemma3", {}, "gemma3 has a text model inside another one"),
    "llama, linear": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}},
        "already scaled .rope_type linear. and its config does not say from which window",
    ),
    "llama, dynamic": (
        "Llama",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}},
        "llama has rope_type dynamic; Ropewalk reads default, linear",
    ),
}
DEFAULT = {"rope_type": "default", "rope_theta": 1e4}
WRONG_FILES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown type": (
        {"rope_parameters": {**DEFAULT, "rope_type": "foo"}},
        "llama has rope_type foo; Ropewalk reads",
    ),
    "old form, unknown type": (
        {"rope_scaling": {"type": "foo", "factor": 2.0}, "rope_theta": 1e4},
        "has rope_type foo",
    ),
    "factor without a type": (
        {"rope_parameters": {"rope_theta": 1e4, "factor": 4.0}},
        "has factor 4.0 and rope_type default",
    ),
    "no factor": (
        {"rope_parameters": {**DEFAULT, "rope_type": "yarn"}},
        "its config must be readable .*factor",
    ),
    "factor in words": (
        {"rope_parameters": {**DEFAULT, "rope_type": "yarn", "factor": "four"}},
        "has factor four",
    ),
    "negative factor": (
        {"rope_parameters": {**DEFAULT, "rope_type": "linear", "factor": -2.0}},
        "has factor -2.0",
    ),
    "no theta": (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 0.0}},
        "has rope_theta 0.0",
    ),
    "window that is no integer": (
        {"max_position_embeddings": 256.5},
        "config must be readable .*max_position_embeddings",
    ),
}
METHODS = [
    m for m in METHODS_WITHOUT_A_FILE if m not in ("none", "dynamic")
]  # neither scales at once


def rope(method: str, config: PreTrainedConfig) -> RopeConfig:
    """The method, with a window eight times that of the model."""
    original = window_of(config)
    return settings(method, 8 * 256 / original, dim_of(config))


def window_of(config: PreTrainedConfig) -> int:
    return plan.make(RopeConfig(), config, "small").original_max_position_embeddings


def dim_of(config: PreTrainedConfig) -> int:
    return 2 * len(plan.make(RopeConfig(), config, "small").inv_freq)


def test_at_least_twenty_architectures_are_handled() -> None:
    assert len({name for name, _ in HANDLED.values()}) >= 20
    assert len(HANDLED) + len(REFUSED) >= 40


@pytest.mark.parametrize("name", HANDLED)
def test_a_rescaled_model_holds_its_plan_before_and_after_saving(name: str, tmp_path: Path) -> None:
    kind, extra = HANDLED[name]
    for method in METHODS:
        torch.manual_seed(0)
        config = config_of(kind, extra)
        planned = plan.make(rope(method, config), config, name)
        assert planned.max_position_embeddings == 2048
        model = AutoModelForCausalLM.from_config(plan.apply(planned, config))
        message = proof.prove(model, planned, "after construction")
        assert "queries and keys of 2 layers" in message, message
        model.save_pretrained(tmp_path / method)
        reloaded = AutoModelForCausalLM.from_pretrained(tmp_path / method)
        assert "queries and keys of 2 layers" in proof.prove(reloaded, planned, "after reload")


@pytest.mark.parametrize("name", HANDLED)
def test_the_unscaled_base_holds_the_unscaled_plan(name: str) -> None:
    kind, extra = HANDLED[name]
    planned = plan.make(YarnConfig(factor=64.0), config_of(kind, extra), name).unscaled
    model = AutoModelForCausalLM.from_config(plan.apply(planned, config_of(kind, extra)))
    untouched = AutoModelForCausalLM.from_config(config_of(kind, extra))
    for candidate in (model, untouched):
        assert "queries and keys of 2 layers" in proof.prove(candidate, planned, "of the base")


@pytest.mark.parametrize("name", REFUSED)
def test_other_architectures_are_refused_by_name(name: str) -> None:
    kind, extra, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message) as error:
        plan.make(YarnConfig(factor=4.0), config_of(kind, extra), "the-model")
    assert "model.path is the-model" in str(error.value)


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_wrong_config_file_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    content, message = WRONG_FILES[name]
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | content))
    with pytest.raises(ConfigError, match=message) as error:
        config = base_config(Base(str(tmp_path)))
        plan.make(
            YarnConfig(factor=4.0, original_max_position_embeddings=64), config, tmp_path.name
        )
    assert "\n" not in str(error.value) and str(error.value).count(";") >= 2


@pytest.mark.parametrize("name", HANDLED)
def test_tables_that_switch_by_length_hold_on_both_sides_of_the_window(name: str) -> None:
    kind, extra = HANDLED[name]
    factor, half = 8 * 256 / window_of(config_of(kind, extra)), dim_of(config_of(kind, extra)) // 2
    switching = LongRopeConfig(
        factor=factor, long_factor=[factor] * half, short_factor=[1.0] * half
    )
    for rope_config in (DynamicConfig(factor=factor), switching):
        config = config_of(kind, extra)
        planned = plan.make(rope_config, config, name)
        assert planned.short_inv_freq is not None
        assert planned.inv_freq[-1] < planned.short_inv_freq[-1] / 7
        model = AutoModelForCausalLM.from_config(plan.apply(planned, config))
        assert "queries and keys of 2 layers" in proof.prove(model, planned, "after construction")


def test_only_the_full_attention_layers_of_gemma_3_are_rescaled() -> None:
    config = config_of("Gemma3Text", {"head_dim": 32, **TWO_KINDS})
    planned = plan.make(settings("yarn", 8.0), config, "small")
    model: Any = AutoModelForCausalLM.from_config(plan.apply(planned, config))
    untouched: Any = AutoModelForCausalLM.from_config(
        config_of("Gemma3Text", {"head_dim": 32, **TWO_KINDS})
    )
    live, original_rotary = model.model.rotary_emb, untouched.model.rotary_emb
    assert torch.equal(live.sliding_attention_inv_freq, original_rotary.sliding_attention_inv_freq)
    assert live.full_attention_inv_freq[-1] == pytest.approx(
        float(original_rotary.full_attention_inv_freq[-1]) / 8, rel=1e-6
    )


def test_the_temperature_of_decoupled_heads_goes_into_the_softmax_scale() -> None:
    """cos and sin reach 8 of 32 dimensions: a factor there would not be YaRN's temperature."""
    config = config_of("DeepseekV3", MLA)
    planned = plan.make(YarnConfig(factor=8.0), config, "small")
    assert planned.attention_factor == 1.0
    assert planned.softmax_factor == pytest.approx((0.1 * 2.0794415 + 1) ** 2)
    model: Any = AutoModelForCausalLM.from_config(plan.apply(planned, config))
    scaling = model.model.layers[0].self_attn.scaling
    assert scaling == pytest.approx(32**-0.5 * planned.softmax_factor)


def test_a_temperature_that_is_given_stays_where_it_is() -> None:
    """Either of YaRN's two ways to say it: nothing is moved into the softmax scale."""
    config = config_of("DeepseekV3", MLA)
    factor = plan.make(YarnConfig(factor=8.0, attention_factor=1.1), config, "small")
    assert factor.attention_factor == 1.1
    given = plan.make(YarnConfig(factor=8.0, mscale=0.7, mscale_all_dim=0.7), config, "small")
    assert given.attention_factor == 1.0
    assert given.softmax_factor == pytest.approx((0.1 * 0.7 * 2.0794415 + 1) ** 2)
