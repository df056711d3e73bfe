"""Parameters that ZeRO 3 partitions from construction on: no rank holds the whole model."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import deepspeed
import torch
from torch import nn
from transformers.integrations import deepspeed as transformers_deepspeed


class _Zero3Config:
    """Transformers asks it before it builds a model, and keeps a weak reference only."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def is_zero3(self) -> bool:
        return True


@contextmanager
def zero3_init(config: dict[str, Any] | None) -> Iterator[None]:
    """While open, transformers builds partitioned models if DeepSpeed's `config` says stage 3.

    Rank 0 reads the files, tensor by tensor, and each rank keeps its part in the config's
    precision.
    """
    if config is None or not is_zero3(config):
        yield
        return
    zero3_config = _Zero3Config(config)
    transformers_deepspeed.set_hf_deepspeed_config(zero3_config)
    try:
        yield
    finally:
        transformers_deepspeed.unset_hf_deepspeed_config()


def is_zero3(config: dict[str, Any] | None) -> bool:
    """Whether DeepSpeed's `config` partitions the parameters."""
    return config is not None and config["zero_optimization"]["stage"] == 3


def is_partitioned(model: nn.Module) -> bool:
    return any(hasattr(p, "ds_id") for p in model.parameters())


def gathered(
    *parameters: torch.Tensor, modifier_rank: int | None = None
) -> AbstractContextManager[Any]:
    """Collective. Whole parameters on every rank; the changes of `modifier_rank` are kept."""
    partitioned = [p for p in parameters if hasattr(p, "ds_id")]
    if not partitioned:
        return nullcontext()
    return deepspeed.zero.GatheredParameters(partitioned, modifier_rank=modifier_rank)  # type: ignore[no-any-return]


def model_bytes(model: nn.Module) -> int:
    """Of all parameters, before ZeRO 3 partitioned them, in their own dtypes."""
    return sum(full_shape(p).numel() * p.element_size() for p in model.parameters())


def full_shape(parameter: torch.Tensor) -> torch.Size:
    """The parameter's shape before ZeRO 3 partitioned it or 4-bit quantisation packed it."""
    quant_state = getattr(parameter, "quant_state", None)
    shape = parameter.shape if quant_state is None else quant_state.shape
    return torch.Size(getattr(parameter, "ds_shape", shape))
