"""Head sizes and sliding windows of a model's attention layers, read from its config."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig


def of_depth(values: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """A config's values with the first `layers` layers: lists with an item for each layer too."""
    all_layers = values["num_hidden_layers"]
    return {
        key: list(value)[:layers]
        if isinstance(value, (list, tuple)) and len(value) == all_layers
        else value
        for key, value in values.items()
    } | {"num_hidden_layers": layers}


def head_dim(config: PreTrainedConfig) -> int:
    """Size of a query's head, with decoupled rotary dimensions (DeepSeek) included."""
    if decoupled := getattr(config, "qk_rope_head_dim", None):
        return int(decoupled + config.qk_nope_head_dim)  # type: ignore[attr-defined]
    if explicit := getattr(config, "head_dim", None):
        return int(explicit)
    return int(config.hidden_size // config.num_attention_heads)  # type: ignore[attr-defined]


def value_dim(config: PreTrainedConfig) -> int:
    """Size of a value's head: of decoupled heads (DeepSeek) its own."""
    if getattr(config, "qk_rope_head_dim", None):
        return int(config.v_head_dim)  # type: ignore[attr-defined]
    return head_dim(config)


def head_counts(config: PreTrainedConfig) -> tuple[int, int]:
    """Query heads and key/value heads of a model's text layers."""
    text = config.get_text_config()
    query_heads = text.num_attention_heads
    return query_heads, getattr(text, "num_key_value_heads", None) or query_heads


def sliding_layers(config: PreTrainedConfig) -> list[bool]:
    """Whether each layer sees a sliding window only."""
    if layer_types := getattr(config, "layer_types", None):
        return [layer_type == "sliding_attention" for layer_type in layer_types]
    window = getattr(config, "sliding_window", None)
    sliding = bool(window and getattr(config, "use_sliding_window", True))
    return [sliding] * config.num_hidden_layers  # type: ignore[attr-defined]


def sliding_windows(config: PreTrainedConfig) -> list[int | None]:
    """The sliding window of each layer, in tokens; None: the layer sees full documents."""
    window = getattr(config, "sliding_window", None)
    return [window if sliding else None for sliding in sliding_layers(config)]
