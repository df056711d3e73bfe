"""Models whose parameters lie in pieces over the ranks from the first line on (ZeRO 3): no rank ever holds a whole copy."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.integrations import deepspeed as of_transformers


class _Told:
    """What transformers asks before it makes a model; it keeps a weak reference only."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.config = settings

    def is_zero3(self) -> bool:
        return bool(self.config["zero_optimization"]["stage"] == 3)


@contextmanager
def made(settings: dict[str, Any] | None) -> Iterator[None]:
    """While open, transformers makes models in pieces if DeepSpeed's `settings` say stage 3: rank 0 reads the files, tensor by tensor,
    and each rank keeps its part, in the precision that the settings say."""
    told = None if settings is None else _Told(settings)
    if told is None or not told.is_zero3():
        yield
        return
    of_transformers.set_hf_deepspeed_config(told)
    try:
        yield
    finally:
        of_transformers.unset_hf_deepspeed_config()


def are(model: nn.Module) -> bool:
    return any(hasattr(p, "ds_id") for p in model.parameters())


def gathered(parameter: torch.Tensor) -> Any:
    """While open, the parameter is whole on every rank. Every rank opens it."""
    return deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id"))


def shape(parameter: torch.Tensor) -> torch.Size:
    """Of the whole parameter, wherever its pieces lie."""
    found: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return found


def from_nothing(
    config: PreTrainedConfig, dtype: torch.dtype, seed: int, settings: dict[str, Any] | None
) -> PreTrainedModel:
    """Random weights of `seed`, the same in pieces as whole, for any number of ranks: rank 0 draws them and gives them out."""
    torch.manual_seed(seed)
    with made(settings):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if not are(model):
        return model
    torch.manual_seed(seed)
    drawn = None if dist.get_rank() else AutoModelForCausalLM.from_config(config, dtype=dtype).state_dict()
    for name, parameter in model.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if drawn is not None:
                parameter.data.copy_(drawn[name])
    return model
