"""What a model requires of its attention, and which models are refused."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ropewalk.conf.errors import ConfigError
from ropewalk.train.model.geometry import head_dim, sliding_layers, value_dim

KernelFunction = Callable[..., tuple[torch.Tensor, None]]
"""A function of transformers' attention signature; shapes are in the package's docstring."""
SUPPORTED_LAYERS = ("full_attention", "sliding_attention")
WITHOUT_BORDERS = ("nemotron", "stablelm")
"""Architectures whose code does not hand the borders of documents to its attention."""
SINKS_PARAMETER = "sinks"
"""The parameter's name in every architecture of transformers that has attention sinks."""


@dataclass(frozen=True)
class Requirements:
    """What the choice of a kernel depends on; the defaults suit every kernel."""

    dtype: torch.dtype = torch.bfloat16
    head_dim: int = 64
    sinks: bool = False
    value_dim: int | None = None
    """Size of a value's head; None: `head_dim`."""


def requirements_of(model: PreTrainedModel, dtype: torch.dtype) -> Requirements:
    """`dtype`: the dtype that the attention computes in.

    No parameter's value is read, so parameters may be partitioned by ZeRO-3.
    """
    names = (name for name, _ in model.named_parameters())
    sinks = any(name.endswith(f".{SINKS_PARAMETER}") for name in names)
    return Requirements(dtype, head_dim(model.config), sinks, value_dim(model.config))


def refuse_unsupported(config: PreTrainedConfig, name: str, s2_group: int | None = None) -> None:
    """Refuse an architecture that the rope stage rescales and the trainer's attention cannot run.

    Raises: ConfigError when the config has such a layer or setting.
    """
    if problem := next(_problems(config), None):
        raise ConfigError(f"model.path is {name}; its architecture {config.model_type} {problem}")
    if s2_group is not None and any(sliding_layers(config)):
        raise ConfigError(
            f"train.attention.s2_group is {s2_group}; {config.model_type} has sliding-window "
            "layers already, and S2-Attn stands in for full attention; unset it"
        )


def _problems(config: PreTrainedConfig) -> Iterator[str]:
    layer_types = set(getattr(config, "layer_types", None) or ())
    if unsupported := sorted(layer_types - set(SUPPORTED_LAYERS)):
        yield (
            f"has layers of {', '.join(unsupported)}; the trainer keeps documents apart in full "
            "and sliding-window attention only; choose another model"
        )
    if config.model_type in WITHOUT_BORDERS:
        yield (
            "does not hand the borders of documents to its attention, so they could not be kept "
            "apart; choose another model"
        )
    if getattr(config, "is_encoder_decoder", False):
        yield "is an encoder-decoder; the trainer trains decoders; choose another model"
    if getattr(config, "use_bidirectional_attention", None):
        yield (
            "looks ahead (use_bidirectional_attention); a decoder is trained; choose another model"
        )
    if cap := getattr(config, "attn_logit_softcapping", None):
        yield (
            f"soft-caps its attention scores (attn_logit_softcapping {cap}), which the trainer's "
            "kernels do not do; choose another model"
        )
