"""What a model asks of its attention: refused by name where no kernel does it, else counted for the choice of one."""

from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ropewalk.conf.errors import ConfigError
from ropewalk.train.rope.shape import slides

HANDLED = ("full_attention", "sliding_attention")
SINKS = "sinks"
"""The parameter's name in every architecture of transformers that has them."""


@dataclass(frozen=True)
class Needs:
    """What the choice of a kernel depends on; without a model, what every kernel has."""

    dtype: torch.dtype = torch.bfloat16
    head_dim: int = 64
    sinks: bool = False


def needs(model: PreTrainedModel, dtype: torch.dtype) -> Needs:
    """`dtype`: what the attention will compute in. Parameters may still lie in pieces: no value is read."""
    sinks = any(name.endswith(f".{SINKS}") for name, _ in model.named_parameters())
    return Needs(dtype, head_dim(model.config), sinks)


def head_dim(config: PreTrainedConfig) -> int:
    """Size of a query's head, decoupled rotary dimensions included (DeepSeek)."""
    if rotary := getattr(config, "qk_rope_head_dim", None):
        return int(rotary + config.qk_nope_head_dim)  # type: ignore[attr-defined]
    own = getattr(config, "head_dim", None)
    return int(own or config.hidden_size // config.num_attention_heads)  # type: ignore[attr-defined]


def refuse(config: PreTrainedConfig, name: str, s2_group: int | None = None) -> None:
    """What the rope stage rescales and the trainer's attention does not do. Raises: ConfigError by name."""
    kind = f"model.path is {name}; its architecture {config.model_type}"
    others = sorted({*(getattr(config, "layer_types", None) or ())} - {*HANDLED})
    if others:
        raise ConfigError(
            f"{kind} has layers of {', '.join(others)}; the trainer keeps documents apart in full and sliding-window attention only; "
            "choose another model"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise ConfigError(f"{kind} is an encoder-decoder; the trainer trains decoders; choose another model")
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
    if s2_group is not None and slides(config):
        raise ConfigError(
            f"train.s2_group is {s2_group}; {config.model_type} has sliding-window layers already, and S2-Attn stands in for full "
            "attention; unset it"
        )
