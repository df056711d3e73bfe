"""What a model asks of its attention: refused by name where no kernel does it, else counted for the choice of one."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.borders import Ends
from ropewalk.train.rope.model_config import has_sliding_layers

HANDLED = ("full_attention", "sliding_attention")
SINKS = "sinks"
"""The parameter's name in every architecture of transformers that has them."""


@dataclass(frozen=True)
class Requirements:
    """What the choice of a kernel depends on; without a model, what every kernel has."""

    dtype: torch.dtype = torch.bfloat16
    head_dim: int = 64
    sinks: bool = False


def requirements_of(model: PreTrainedModel, dtype: torch.dtype) -> Requirements:
    """`dtype`: what the attention will compute in. Parameters may still lie in pieces: no value is read."""
    sinks = any(name.endswith(f".{SINKS}") for name, _ in model.named_parameters())
    return Requirements(dtype, head_dim(model.config), sinks)


def head_dim(config: PreTrainedConfig) -> int:
    """Size of a query's head, decoupled rotary dimensions included (DeepSeek)."""
    if rotary := getattr(config, "qk_rope_head_dim", None):
        return int(rotary + config.qk_nope_head_dim)  # type: ignore[attr-defined]
    own = getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)  # type: ignore[attr-defined]


def refuse_unsupported(config: PreTrainedConfig, name: str, s2_group: int | None = None) -> None:
    """What the rope stage rescales and the trainer's attention does not do. Raises: ConfigError by name."""
    kind = f"model.path is {name}; its architecture {config.model_type}"
    others = sorted({*(getattr(config, "layer_types", None) or ())} - {*HANDLED})
    if others:
        raise ConfigError(
            f"{kind} has layers of {', '.join(others)}; the trainer keeps documents apart in full and sliding-window attention only; "
            "choose another model"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise ConfigError(
            f"{kind} is an encoder-decoder; the trainer trains decoders; choose another model"
        )
    if getattr(config, "use_bidirectional_attention", None):
        raise ConfigError(
            f"{kind} looks ahead (use_bidirectional_attention); a decoder is trained; choose another model"
        )
    if cap := getattr(config, "attn_logit_softcapping", None):
        raise ConfigError(
            f"{kind} soft-caps its attention scores (attn_logit_softcapping {cap}), which the trainer's kernels do not do; choose "
            "another model"
        )
    if dropout := getattr(config, "attention_dropout", 0):
        raise ConfigError(
            f"{kind} has attention_dropout {dropout}; it must be 0 for a reproducible extension; set it to 0 in the model's config"
        )
    if s2_group is not None and has_sliding_layers(config):
        raise ConfigError(
            f"train.s2_group is {s2_group}; {config.model_type} has sliding-window layers already, and S2-Attn stands in for full "
            "attention; unset it"
        )


UNKNOWN = {
    "softcap": "soft-caps its attention scores",
    "position_bias": "adds a bias of positions to its attention scores",
    "indices": "attends to chosen tokens only",
    "block_indices": "attends to chosen blocks only",
    "sinks": "has attention sinks of its own form",
}


def validate_call(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    ends: Ends,
    dropout: float,
    words: dict[str, Any],
) -> None:
    """Raises: ConfigError for what the model asks and no kernel does, ValueError for shapes that do not belong together."""
    if query.shape[0] != 1:
        raise ValueError(
            f"batch is {query.shape[0]}; rows are laid end to end, so it must be 1; join the rows"
        )
    if not query.shape[2] == key.shape[2] == ends[-1]:
        raise ValueError(
            f"query has {query.shape[2]} tokens, key {key.shape[2]} and the documents {ends[-1]}; they must be one sequence; "
            "give the borders of the whole sequence, and no cache"
        )
    if dropout:
        raise ConfigError(
            f"attention_dropout is {dropout}; it must be 0 for a reproducible extension; set it to 0 in the model's config"
        )
    for word, does in UNKNOWN.items():
        if words.get(word) is not None:
            raise ConfigError(
                f"model.path has an attention that {does}; the trainer's kernels do not; choose another model"
            )
    if words.get("is_causal") is False or getattr(module, "is_causal", True) is False:
        raise ConfigError(
            "model.path has an attention that looks ahead; a decoder is trained on what came before; choose another model"
        )
