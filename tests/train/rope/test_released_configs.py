"""Settings that lead to the rotary keys of released models.

The oracle of a table is transformers: its own function on the released keys, its config's defaults.
"""

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from transformers import ApertusConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import (
    ABFConfig,
    DynamicConfig,
    Llama3Config,
    PIConfig,
    RopeConfig,
    YarnConfig,
)
from ropewalk.train.export.serving import scaling_flags
from ropewalk.train.rope import plan, proof
from ropewalk.train.rope.lint import lint

SMALL = {"hidden_size": 256, "num_attention_heads": 2, "num_key_value_heads": 2}
SMALL |= {"num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 64, "head_dim": 128}
SMALL |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA_3_1: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""Of Llama 3.1's config.json; its window is 131,072."""
GEMMA_3 = {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0}
"""Of Gemma 3 4B's config.json, global layers; its window is 131,072."""
DEEPSEEK_V3: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 40.0,
    "original_max_position_embeddings": 4096,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
"""Of DeepSeek-V3's config.json without its default betas; it was trained to 131,072."""
DEEPSEEK = {"head_dim": 64, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
APERTUS = dict(ApertusConfig().rope_parameters)
"""The defaults of transformers are the released 8B's."""
GEMMA_LAYERS: dict[str, Any] = {
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": 1024,
}


def base(kind: str, theta: float, window: int, **extra: Any) -> PreTrainedConfig:
    """A small model of the architecture before its extension."""
    parameters: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if kind == "Gemma3Text":
        parameters = {layer: dict(parameters) for layer in GEMMA_LAYERS["layer_types"]}
        extra |= GEMMA_LAYERS
    keys = {**SMALL, "max_position_embeddings": window, "rope_parameters": parameters, **extra}
    config: PreTrainedConfig = getattr(transformers, f"{kind}Config")(**keys)
    return config


RELEASED: dict[str, tuple[PreTrainedConfig, RopeConfig, dict[str, Any], int]] = {
    "Llama 3.1": (
        base("Llama", 5e5, 8192),
        Llama3Config(factor=8.0, max_position_embeddings=131_072),
        LLAMA_3_1,
        131_072,
    ),
    "Gemma 3": (
        base("Gemma3Text", 1e4, 32_768),
        PIConfig(factor=8.0, rope_theta=1e6, max_position_embeddings=131_072),
        GEMMA_3,
        131_072,
    ),
    "DeepSeek-V3": (
        base("DeepseekV3", 1e4, 4096, **DEEPSEEK),
        YarnConfig(factor=40.0, max_position_embeddings=131_072),
        DEEPSEEK_V3,
        131_072,
    ),
    "Apertus": (
        base("Apertus", 5e5, 4096),
        Llama3Config(
            factor=8.0,
            rope_theta=12e6,
            original_max_position_embeddings=8192,
            max_position_embeddings=65_536,
        ),
        APERTUS,
        ApertusConfig().max_position_embeddings,
    ),
    "SmolLM3, served with YaRN": (
        base("SmolLM3", 5e4, 65_536),
        YarnConfig(factor=2.0, rope_theta=5e6),
        {
            "rope_type": "yarn",
            "rope_theta": 5e6,
            "factor": 2.0,
            "original_max_position_embeddings": 65_536,
        },
        131_072,
    ),
    "Code Llama": (
        base("Llama", 1e4, 4096),
        ABFConfig(factor=25.0, rope_theta=1e6, max_position_embeddings=16_384),
        {"rope_type": "default", "rope_theta": 1e6},
        16_384,
    ),
}


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_models_keys_follow_from_the_settings(name: str) -> None:
    config, rope, released, window = RELEASED[name]
    made = plan.make(rope, config, name)
    assert made.rope_parameters == released
    assert made.max_position_embeddings == window
    applied = plan.apply(made, base_copy(config))
    assert applied.max_position_embeddings == window
    model = AutoModelForCausalLM.from_config(applied)
    assert "hold the plan" in proof.prove(model, made, "in the test")
    if released["rope_type"] != "default":
        layer = made.layer_type
        table, factor = ROPE_INIT_FUNCTIONS[released["rope_type"]](
            released_config(config, released, window, layer), torch.device("cpu"), layer_type=layer
        )
        assert torch.tensor(made.inv_freq) == pytest.approx(table.numpy(), rel=1e-5)
        assert made.attention_factor == pytest.approx(factor)


def base_copy(config: PreTrainedConfig) -> PreTrainedConfig:
    return type(config)(**config.to_dict())


def released_config(
    config: PreTrainedConfig, released: dict[str, Any], window: int, layer: str | None
) -> PreTrainedConfig:
    keys = config.to_dict() | {"max_position_embeddings": window}
    tables = dict(keys["rope_parameters"])
    keys["rope_parameters"] = {**tables, layer: released} if layer else dict(released)
    return type(config)(**keys)


def findings(made: plan.RopePlan, pretrained: int, **kwargs: Any) -> list[str]:
    facts = {"architecture": "llama", "sliding": False, "pretrained": pretrained}
    return lint(made, **(facts | {"seq_len": made.max_position_embeddings, "steps": 10} | kwargs))


def test_training_at_the_window_apart_from_the_factor_is_not_beyond_it() -> None:
    config, rope, _, window = RELEASED["Llama 3.1"]
    (line,) = findings(plan.make(rope, config, "small"), 8192)
    assert line.startswith("rope.max_position_embeddings is 131072; rope.factor 8 leads from 8192")
    assert "turn up to 2 times as far" in line and line.endswith("rope.factor=16")
    (_, beyond) = findings(plan.make(rope, config, "small"), 8192, seq_len=window + 1)
    assert "trained beyond the planned window" in beyond
    config, rope, _, window = RELEASED["DeepSeek-V3"]
    assert findings(plan.make(rope, config, "small"), 4096) == []  # 131,072 is 32 times 4,096
    (line,) = findings(plan.make(replace(rope, max_position_embeddings=None), config, "s"), 4096)
    assert line.startswith("rope.factor is 40; 163840 tokens are 40 times the window of the base")


def test_a_ramp_beyond_the_bases_window_is_told() -> None:
    config, rope, _, _ = RELEASED["Apertus"]
    (line,) = findings(plan.make(rope, config, "small"), 4096)
    assert line.startswith("rope.original_max_position_embeddings is 8192; its config has 4096")
    rope = Llama3Config(factor=8.0, original_max_position_embeddings=8192)
    with pytest.raises(ConfigError, match=r"the new one in rope\.max_position_embeddings"):
        plan.make(rope, config, "small")


def test_gemma_3_is_read_with_the_window_in_its_config() -> None:
    released = released_config(RELEASED["Gemma 3"][0], GEMMA_3, 131_072, "full_attention")
    rope = YarnConfig(factor=16.0, original_max_position_embeddings=32_768)
    made = plan.make(rope, released, "gemma")
    assert (made.base_window, made.max_position_embeddings) == (131_072, 524_288)


@pytest.mark.parametrize(("window", "good"), [(8192, False), (8193, True), (65_535, True)])
def test_a_window_apart_is_longer_than_the_original(window: int, good: bool) -> None:
    rope = YarnConfig(factor=8.0, max_position_embeddings=window)
    if good:
        made = plan.make(rope, RELEASED["Llama 3.1"][0], "small")
        assert made.max_position_embeddings == window
        return
    with pytest.raises(ConfigError, match="is 8192; the model already reads 8192; it must be long"):
        plan.make(rope, RELEASED["Llama 3.1"][0], "small")


def test_a_scaled_base_needs_a_longer_window() -> None:
    config = released_config(RELEASED["Llama 3.1"][0], LLAMA_3_1, 131_072, None)
    rope = Llama3Config(factor=16.0, max_position_embeddings=131_072)
    with pytest.raises(ConfigError, match="is 131072; the model already reads 131072"):
        plan.make(rope, config, "small")
    rope.max_position_embeddings = 262_144
    assert plan.make(rope, config, "small").max_position_embeddings == 262_144


def test_dynamic_ntk_and_none_read_no_window_apart() -> None:
    for rope in (
        DynamicConfig(factor=8.0, max_position_embeddings=4096),
        RopeConfig(max_position_embeddings=4096),
        YarnConfig(factor=8.0, target_length=4096, max_position_embeddings=4096),
    ):
        (line,) = rope.problems("rope.")
        assert line.startswith("rope.max_position_embeddings is 4096; ")


def test_llama_cpps_flags_have_the_new_theta() -> None:
    config, _, _, _ = RELEASED["Llama 3.1"]
    for rope in (PIConfig(factor=4.0, rope_theta=1e6), YarnConfig(factor=4.0, rope_theta=1e6)):
        flags = scaling_flags(plan.make(rope, config, "small"))
        assert flags is not None and flags.endswith(" --rope-freq-base 1000000.0")
        rope.rope_theta = None
        flags = scaling_flags(plan.make(rope, config, "small"))
        assert flags is not None and "freq-base" not in flags
