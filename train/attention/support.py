"""What a model requires of its attention, and what every kernel refuses."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.borders import Ends
from ropewalk.train.model.geometry import head_dim, sliding_layers

KernelFunction = Callable[..., tuple[torch.Tensor, None]]
"""A function of transformers' attention signature; shapes are in the package's docstring."""
SUPPORTED_LAYERS = ("full_attention", "sliding_attention")
SINKS_PARAMETER = "sinks"
"""The parameter's name in every architecture of transformers that has attention sinks."""


@dataclass(frozen=True)
class Requirements:
    """What the choice of a kernel depends on; the defaults suit every kernel."""

    dtype: torch.dtype = torch.bfloat16
    head_dim: int = 64
    sinks: bool = False


def requirements_of(model: PreTrainedModel, dtype: torch.dtype) -> Requirements:
    """`dtype`: the dtype that the attention computes in.

    No parameter's value is read, so parameters may be partitioned by ZeRO-3.
    """
    names = (name for name, _ in model.named_parameters())
    sinks = any(name.endswith(f".{SINKS_PARAMETER}") for name in names)
    return Requirements(dtype, head_dim(model.config), sinks)


def refuse_unsupported(config: PreTrainedConfig, name: str, s2_group: int | None = None) -> None:
    """Refuse an architecture that the rope stage rescales and the trainer's attention cannot run.

    Raises: ConfigError when the config has such a layer or setting.
    """
    model = f"model.path is {name}; its architecture {config.model_type}"
    layer_types = set(getattr(config, "layer_types", None) or ())
    if unsupported := sorted(layer_types - set(SUPPORTED_LAYERS)):
        raise ConfigError(
            f"{model} has layers of {', '.join(unsupported)}; the trainer keeps documents apart in "
            "full and sliding-window attention only; choose another model"
        )
    if getattr(config, "is_encoder_decoder", False):
        raise ConfigError(
            f"{model} is an encoder-decoder; the trainer trains decoders; choose another model"
        )
    if getattr(config, "use_bidirectional_attention", None):
        raise ConfigError(
            f"{model} looks ahead (use_bidirectional_attention); a decoder is trained; choose "
            "another model"
        )
    if cap := getattr(config, "attn_logit_softcapping", None):
        raise ConfigError(
            f"{model} soft-caps its attention scores (attn_logit_softcapping {cap}), which the "
            "trainer's kernels do not do; choose another model"
        )
    if dropout := getattr(config, "attention_dropout", 0):
        raise ConfigError(
            f"{model} has attention_dropout {dropout}; it must be 0 for a reproducible extension; "
            "set it to 0 in the model's config"
        )
    if s2_group is not None and any(sliding_layers(config)):
        raise ConfigError(
            f"train.attention.s2_group is {s2_group}; {config.model_type} has sliding-window layers already, "
            "and S2-Attn stands in for full attention; unset it"
        )


UNSUPPORTED_ARGUMENTS = {
    "softcap": "soft-caps its attention scores",
    "position_bias": "adds a bias of positions to its attention scores",
    "indices": "attends to chosen tokens only",
    "block_indices": "attends to chosen blocks only",
    "sinks": "has attention sinks of its own form",
}
"""Keyword arguments that some architectures pass to their attention, and what each means."""


def validate_call(
    module: nn.Module | None,
    query: torch.Tensor,
    key: torch.Tensor,
    ends: Ends,
    dropout: float,
    kwargs: dict[str, Any],
) -> None:
    """Check a kernel's arguments. query (1, H, S, D), key (1, K, S, D).

    Raises: ConfigError when the model asks for what no kernel does, ValueError when shapes and
    borders do not fit each other.
    """
    if query.shape[0] != 1:
        raise ValueError(
            f"batch is {query.shape[0]}; rows are laid end to end, so it must be 1; join the rows"
        )
    if not query.shape[2] == key.shape[2] == ends[-1]:
        raise ValueError(
            f"query has {query.shape[2]} tokens, key {key.shape[2]} and the documents {ends[-1]}; "
            "they must be one sequence; give the borders of the whole sequence, and no cache"
        )
    if dropout:
        raise ConfigError(
            f"attention_dropout is {dropout}; it must be 0 for a reproducible extension; "
            "set it to 0 in the model's config"
        )
    for argument, meaning in UNSUPPORTED_ARGUMENTS.items():
        if kwargs.get(argument) is not None:
            raise ConfigError(
                f"model.path has an attention that {meaning}; the trainer's kernels do not; choose "
                "another model"
            )
    if kwargs.get("is_causal") is False or getattr(module, "is_causal", True) is False:
        raise ConfigError(
            "model.path has an attention that looks ahead; a decoder is trained on what came "
            "before; choose another model"
        )
