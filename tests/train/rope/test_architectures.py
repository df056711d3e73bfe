"""Real config classes of transformers, small random models: rescaled, proved live, saved, reloaded, proved; or refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import (
    ROPE_METHODS,
    DynamicConfig,
    LongRopeConfig,
    RopeConfig,
    YarnConfig,
)
from ropewalk.train.base import Base, base_config
from ropewalk.train.rope import plan, proof

SMALL: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
TWO_KINDS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 64}
MLA = {
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 24,
    "v_head_dim": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 16,
}
LLAMA31 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
"""Llama 3.1 in small: 32 tokens of pre-training, stretched to 256."""
SCALED_YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
PHI3_LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0 + 0.1 * i for i in range(8)],
    "long_factor": [1.0 + 0.5 * i for i in range(8)],
    "original_max_position_embeddings": 64,
}
HANDLED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama 3.1": ("Llama", {"rope_parameters": LLAMA31}),
    "llama, own head_dim": ("Llama", {"head_dim": 32}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "sliding_window": None}),
    "qwen2": ("Qwen2", {}),
    "qwen2.5, scaled by yarn": ("Qwen2", {"rope_parameters": SCALED_YARN}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "qwen3 moe": (
        "Qwen3Moe",
        {"num_experts": 4, "moe_intermediate_size": 16, "num_experts_per_tok": 2},
    ),
    "gemma": ("Gemma", {"head_dim": 32}),
    "gemma 2": ("Gemma2", {"head_dim": 32, **TWO_KINDS}),
    "gemma 3": ("Gemma3Text", {"head_dim": 32, **TWO_KINDS}),
    "phi": ("Phi", {}),
    "phi 3": ("Phi3", {"original_max_position_embeddings": 256}),
    "phi 3, longrope": (
        "Phi3",
        {"original_max_position_embeddings": 64, "rope_parameters": PHI3_LONG},
    ),
    "glm": ("Glm", {"head_dim": 16}),
    "glm 4": ("Glm4", {"head_dim": 16}),
    "olmo": ("Olmo", {}),
    "olmo 2": ("Olmo2", {}),
    "olmo 3": ("Olmo3", TWO_KINDS),
    "gpt-neox": ("GPTNeoX", {"partial_rotary_factor": 0.5}),
    "stablelm": ("StableLm", {"partial_rotary_factor": 0.5}),
    "deepseek v2": ("DeepseekV2", MLA),
    "deepseek v3": ("DeepseekV3", MLA),
    "gpt-oss": (
        "GptOss",
        {
            "head_dim": 16,
            "num_local_experts": 4,
            **TWO_KINDS,
            "rope_parameters": {**SCALED_YARN, "truncate": False},
        },
    ),
    "cohere": ("Cohere", {}),
    "granite": ("Granite", {}),
    "starcoder 2": ("Starcoder2", {"sliding_window": None}),
    "nemotron": ("Nemotron", {"head_dim": 16}),
    "smollm 3": ("SmolLM3", {"no_rope_layers": [1, 0]}),
}
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
    "mistral, all layers sliding": (
        "Mistral",
        {"sliding_window": 64},
        "sliding-window attention in every layer",
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
LLAMA = {
    "vocab_size": 64,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "model_type": "llama",
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
METHODS = ("pi", "ntk", "ntk_by_parts", "yarn", "llama3", "longrope", "abf")


def settings(method: str, factor: float, dim: int = 16) -> RopeConfig:
    more = (
        {"long_factor": [1 + (factor - 1) * i / (dim // 2) for i in range(dim // 2)]}
        if method == "longrope"
        else {}
    )
    return ROPE_METHODS[method](factor=factor, **more)


def config_of(name: str, extra: dict[str, Any]) -> PreTrainedConfig:
    kind = getattr(transformers, f"{name}Config")
    kwargs = {} if name == "Gemma3" else {**SMALL, **extra}
    config: PreTrainedConfig = kind(**kwargs)
    return config


def rope(method: str, config: PreTrainedConfig) -> RopeConfig:
    """Eight times what the model reads now."""
    original = shape_of(config)
    return settings(method, 8 * 256 / original, dim_of(config))


def shape_of(config: PreTrainedConfig) -> int:
    return plan.make(RopeConfig(), config, "small").original_max_position_embeddings


def dim_of(config: PreTrainedConfig) -> int:
    return 2 * len(plan.make(RopeConfig(), config, "small").inv_freq)


def test_as_many_architectures_as_promised() -> None:
    assert len({name for name, _ in HANDLED.values()}) >= 20
    assert len(HANDLED) + len(REFUSED) >= 40


@pytest.mark.parametrize("name", HANDLED)
def test_rescaled_proved_saved_reloaded_proved(name: str, tmp_path: Path) -> None:
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
def test_the_base_as_it_is_is_proved_too(name: str) -> None:
    kind, extra = HANDLED[name]
    planned = plan.make(YarnConfig(factor=64.0), config_of(kind, extra), name).unscaled
    model = AutoModelForCausalLM.from_config(plan.apply(planned, config_of(kind, extra)))
    untouched = AutoModelForCausalLM.from_config(config_of(kind, extra))
    for candidate in (model, untouched):
        assert "queries and keys of 2 layers" in proof.prove(candidate, planned, "of the base")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_handled_is_refused_by_name(name: str) -> None:
    kind, extra, message = REFUSED[name]
    with pytest.raises(ConfigError, match=message) as error:
        plan.make(YarnConfig(factor=4.0), config_of(kind, extra), "the-model")
    assert "model.path is the-model" in str(error.value)


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_config_file_that_is_wrong_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    content, message = WRONG_FILES[name]
    (tmp_path / "config.json").write_text(json.dumps(LLAMA | content))
    with pytest.raises(ConfigError, match=message) as error:
        config = base_config(Base(str(tmp_path)))
        plan.make(
            YarnConfig(factor=4.0, original_max_position_embeddings=64), config, tmp_path.name
        )
    assert "\n" not in str(error.value) and str(error.value).count(";") >= 2


@pytest.mark.parametrize("name", HANDLED)
def test_tables_that_switch_by_length_are_proved_on_both_sides_of_the_window(name: str) -> None:
    kind, extra = HANDLED[name]
    factor, half = 8 * 256 / shape_of(config_of(kind, extra)), dim_of(config_of(kind, extra)) // 2
    switching = LongRopeConfig(
        factor=factor, long_factor=[factor] * half, short_factor=[1.0] * half
    )
    for rope_config in (DynamicConfig(factor=factor), switching):
        config = config_of(kind, extra)
        planned = plan.make(rope_config, config, name)
        assert (
            planned.short_inv_freq is not None
            and planned.inv_freq[-1] < planned.short_inv_freq[-1] / 7
        )
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


def test_a_scaled_base_is_composed_from_its_original_window_and_never_stacked() -> None:
    config = config_of("Llama", {"rope_parameters": LLAMA31})
    planned = plan.make(YarnConfig(factor=16.0), config, "small")
    expected = plan.make(
        YarnConfig(factor=16.0),
        config_of(
            "Llama",
            {
                "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
                "max_position_embeddings": 32,
            },
        ),
        "small",
    )
    assert planned.inv_freq == expected.inv_freq and planned.max_position_embeddings == 512
    assert planned.base_window == 256
    with pytest.raises(
        ConfigError, match=r"already scaled \(llama3\) to 256 tokens, .* must be above 8"
    ):
        plan.make(YarnConfig(factor=8.0), config, "small")
    with pytest.raises(ConfigError, match="own scaling .llama3. starts at 32"):
        plan.make(YarnConfig(factor=16.0, original_max_position_embeddings=256), config, "small")


def test_the_temperature_of_decoupled_heads_goes_into_the_softmax_scale() -> None:
    """cos and sin reach 8 of 32 dimensions: a factor there would not be YaRN's temperature."""
    config = config_of("DeepseekV3", MLA)
    planned = plan.make(YarnConfig(factor=8.0), config, "small")
    assert planned.attention_factor == 1.0 and planned.softmax_factor == pytest.approx(
        (0.1 * 2.0794415 + 1) ** 2
    )
    model: Any = AutoModelForCausalLM.from_config(plan.apply(planned, config))
    assert model.model.layers[0].self_attn.scaling == pytest.approx(
        32**-0.5 * planned.softmax_factor
    )


def from_file(folder: Path, window: int, scaling: dict[str, Any], **more: Any) -> PreTrainedConfig:
    content = {
        **LLAMA,
        "model_type": "qwen2",
        "rope_theta": 1e6,
        "max_position_embeddings": window,
        **more,
    }
    (folder / "config.json").write_text(json.dumps({**content, "rope_scaling": scaling}))
    return base_config(Base(str(folder)))


QWEN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32_768}


@pytest.mark.parametrize("window", [32_768, 40_960, 131_072])
def test_the_window_of_a_scaled_base_is_what_its_factor_reaches(
    window: int, tmp_path: Path
) -> None:
    """Old Qwen configs add rope_scaling only, Qwen 3's say 40,960."""
    config = from_file(tmp_path, window, QWEN)
    planned = plan.make(YarnConfig(factor=8.0), config, "qwen")
    assert (planned.original_max_position_embeddings, planned.base_window) == (32_768, 131_072)
    assert plan.make(RopeConfig(), config, "qwen").factor == 4.0
    with pytest.raises(
        ConfigError, match=r"already scaled .yarn. to 131072 tokens, .* must be above 4"
    ):
        plan.make(YarnConfig(factor=4.0), config, "qwen")


def test_llama_3_2_reads_the_window_that_it_names() -> None:
    """Its factor, 32 from 8192, leads beyond."""
    config = config_of("Llama", {"rope_parameters": {**LLAMA31, "factor": 32.0}})
    assert plan.make(YarnConfig(factor=16.0), config, "small").base_window == 256


def test_a_linear_base_reads_its_factor_from_the_given_window() -> None:
    linear = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
    config = config_of("Llama", {"rope_parameters": linear})
    planned = plan.make(
        YarnConfig(factor=8.0, original_max_position_embeddings=256), config, "small"
    )
    assert (planned.base_window, planned.max_position_embeddings) == (1024, 2048)


@pytest.mark.parametrize("kind", ["yarn", "llama3"])
def test_a_scaled_base_without_its_original_window_is_refused_until_it_is_given(
    kind: str, tmp_path: Path
) -> None:
    more = {"low_freq_factor": 1.0, "high_freq_factor": 4.0} if kind == "llama3" else {}
    config = from_file(tmp_path, 256, {"rope_type": kind, "factor": 4.0, **more})
    with pytest.raises(
        ConfigError,
        match=f"already scaled .rope_type {kind}. and its config does not say from which",
    ):
        plan.make(YarnConfig(factor=8.0), config, "small")
    with pytest.raises(
        ConfigError, match="original_max_position_embeddings is 512; .* starts at 256 at most"
    ):
        plan.make(YarnConfig(factor=8.0, original_max_position_embeddings=512), config, "small")
    planned = plan.make(
        YarnConfig(factor=8.0, original_max_position_embeddings=64), config, "small"
    )
    assert (planned.base_window, planned.max_position_embeddings) == (256, 512)


def test_a_base_whose_original_window_is_given_is_proved_as_it_is(tmp_path: Path) -> None:
    """Its table is the one that transformers builds, from the window that transformers takes for the original."""
    from_file(
        tmp_path,
        256,
        {"type": "yarn", "factor": 4.0},
        **{k: v for k, v in SMALL.items() if k not in LLAMA},
    )
    config = base_config(Base(str(tmp_path)))
    planned = plan.make(
        YarnConfig(factor=8.0, original_max_position_embeddings=64), config, "small"
    )
    for candidate, expected_plan in (
        (config, planned.unscaled),
        (plan.apply(planned, base_config(Base(str(tmp_path)))), planned),
    ):
        model = AutoModelForCausalLM.from_config(candidate)
        assert "queries and keys" in proof.prove(model, expected_plan, "as it is")
