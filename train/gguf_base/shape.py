"""The keys of a GGUF file as a transformers config. A key without a place there is refused."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, PreTrainedConfig
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING

from ropewalk.train.gguf_base import rope_keys
from ropewalk.train.gguf_base.header import Header, values
from ropewalk.train.gguf_base.rope_keys import FREQS, LONG, SHORT, RopeKeys

MODEL_TYPES = {
    "llama": "llama", "qwen2": "qwen2", "qwen2moe": "qwen2_moe", "qwen3": "qwen3",
    "qwen3moe": "qwen3_moe", "phi3": "phi3", "stablelm": "stablelm", "starcoder2": "starcoder2",
    "nemotron": "nemotron",
}  # fmt: skip
"""llama.cpp's architectures that are read, by transformers' names."""
PARTIAL = ("phi3", "stablelm", "nemotron")  # rotate a part of each head where the file says so
CONFIG_KEYS = {
    "attention.sliding_window": "sliding_window",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "expert_weights_norm": "norm_topk_prob",
}
"""Keys that transformers' loader drops, and their names in a config."""
WITHOUT_EFFECT = ("vocab_size", "tensor_data_layout", "attention.causal", "use_parallel_residual")
SIZES = ("context_length", "embedding_length", "block_count", "attention.head_count")


def config_of(file: Path, header: Header) -> PreTrainedConfig:
    """The config that the file describes, in full. Raises: ConfigError, with the key."""
    if header.architecture not in MODEL_TYPES:
        known = ", ".join(MODEL_TYPES)
        raise header.refusal("general.architecture", header.architecture, f"it is one of {known}")
    for size in SIZES:
        value = header.model_keys.get(size)
        if not isinstance(value, int) or value < 1:
            raise header.refusal(
                f"{header.architecture}.{size}", value, "it must be a whole number above 0"
            )
    config: PreTrainedConfig = AutoConfig.from_pretrained(str(file.parent), gguf_file=file.name)
    _set_other_keys(config, header)
    _set_heads(config, header)
    _set_biases(config, header)
    return config


def _set_other_keys(config: PreTrainedConfig, header: Header) -> None:
    """Raises: ConfigError for a key with an effect that has no place in the config."""
    mapped: Any = GGUF_CONFIG_MAPPING[MODEL_TYPES[header.architecture]]
    known = (*mapped, *rope_keys.READ, *WITHOUT_EFFECT, "attention.key_length")
    for key, value in header.model_keys.items():
        if key in CONFIG_KEYS and hasattr(config, CONFIG_KEYS[key]):
            setattr(config, CONFIG_KEYS[key], value)
        elif key not in (*known, "attention.value_length") and value:
            full_key = f"{header.architecture}.{key}"
            raise header.refusal(full_key, value, "it changes the model and is not read")
    if "attention.sliding_window" not in header.model_keys and hasattr(config, "sliding_window"):
        config.sliding_window = None  # transformers' default for some names is a window


def _set_heads(config: PreTrainedConfig, header: Header) -> None:
    """Head size and rotary table. Raises: ConfigError."""
    keys, architecture = header.model_keys, header.architecture
    size = keys.get(
        "attention.key_length", keys["embedding_length"] // keys["attention.head_count"]
    )
    if (other := keys.get("attention.value_length", size)) != size:
        key = f"{architecture}.attention.value_length"
        raise header.refusal(key, other, f"it must be key_length, {size}")
    dim = keys.get("rope.dimension_count", size)
    if dim != size and architecture not in PARTIAL:
        key = f"{architecture}.rope.dimension_count"
        raise header.refusal(key, dim, f"{architecture} rotates whole heads, of {size}")
    if hasattr(config, "head_dim"):
        config.head_dim = size
    divisors = {name: values(header, name) for name in rope_keys.TENSORS}
    rope = RopeKeys(
        keys, dim, keys["context_length"], divisors[FREQS], divisors[LONG], divisors[SHORT]
    )
    parameters = rope_keys.rope_parameters(
        rope, lambda key, value, rule: header.refusal(_full(key, architecture), value, rule)
    )
    if architecture in PARTIAL:
        parameters["partial_rotary_factor"] = dim / size
    config.rope_parameters = parameters  # type: ignore[attr-defined]
    original = parameters.get("original_max_position_embeddings")
    if original and hasattr(config, "original_max_position_embeddings"):
        config.original_max_position_embeddings = original  # Phi-3 reads it there


def _full(key: str, architecture: str) -> str:
    """A key as the file has it; names of tensors are the same for all architectures."""
    return key if key in rope_keys.TENSORS else f"{architecture}.{key}"


def _set_biases(config: PreTrainedConfig, header: Header) -> None:
    """No key tells them: the tensors do."""
    for name, key in (("attn_q", "attention_bias"), ("ffn_up", "mlp_bias")):
        if hasattr(config, key):
            setattr(config, key, f"blk.0.{name}.bias" in header.tensors)


def model_tensors(header: Header) -> dict[str, Any]:
    """The tensors of the model itself, without those of the rotary table."""
    return {n: t for n, t in header.tensors.items() if n not in rope_keys.TENSORS}
