"""RoPE settings, and configs of small models whose rotary tables Ropewalk handles."""

from typing import Any

import transformers
from transformers import PreTrainedConfig

from ropewalk.conf.rope_methods import ROPE_METHODS, RopeConfig

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


"""A small Llama 3.1: pre-trained on 32 tokens, stretched to 256."""
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


def config_of(name: str, extra: dict[str, Any]) -> PreTrainedConfig:
    """A small config of transformers' class `{name}Config`."""
    kwargs = {} if name == "Gemma3" else {**SMALL, **extra}
    config: PreTrainedConfig = getattr(transformers, f"{name}Config")(**kwargs)
    return config


LLAMA: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "model_type": "llama",
}
METHODS_WITHOUT_A_FILE = [m for m in ROPE_METHODS if m != "table"]


def divisors(dim: int, factor: float) -> list[float]:
    """Divisors that rise from 1 to the factor."""
    return [1 + (factor - 1) * (i / (dim // 2 - 1)) ** 2 for i in range(dim // 2)]


def settings(method: str, factor: float, dim: int = 64, **extra: Any) -> RopeConfig:
    if method == "longrope":
        extra = {"long_factor": divisors(dim, factor)} | extra
    return ROPE_METHODS[method](factor=1.0 if method == "none" else factor, **extra)
