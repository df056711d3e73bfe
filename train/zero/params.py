"""Models whose parameters lie in pieces over the ranks from the first line on (ZeRO 3): no rank ever holds a whole copy."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import deepspeed
import torch
from deepspeed.utils import safe_get_local_grad
from torch import nn
from transformers.integrations import deepspeed as of_transformers


class _Zero3Config:
    """What transformers asks before it makes a model; it keeps a weak reference only."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.config = settings

    def is_zero3(self) -> bool:
        return bool(self.config["zero_optimization"]["stage"] == 3)


@contextmanager
def zero3_init(settings: dict[str, Any] | None) -> Iterator[None]:
    """While open, transformers makes models in pieces if DeepSpeed's `settings` say stage 3: rank 0 reads the files, tensor by tensor,
    and each rank keeps its part, in the precision that the settings say."""
    told = None if settings is None else _Zero3Config(settings)
    if told is None or not told.is_zero3():
        yield
        return
    of_transformers.set_hf_deepspeed_config(told)
    try:
        yield
    finally:
        of_transformers.unset_hf_deepspeed_config()


def is_partitioned(model: nn.Module) -> bool:
    return any(hasattr(p, "ds_id") for p in model.parameters())


def gathered(parameter: torch.Tensor) -> Any:
    """While open, the parameter is whole on every rank. Every rank opens it."""
    return deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id"))


def full_shape(parameter: torch.Tensor) -> torch.Size:
    """Of the whole parameter, wherever its pieces lie."""
    found: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return found


def local_gradient(parameter: Any, rank: int) -> torch.Tensor | None:
    """The part of a parameter's averaged gradient that this rank holds, flat; None where it holds none."""
    if hasattr(parameter, "ds_id"):
        return safe_get_local_grad(parameter)  # type: ignore[no-any-return]
    if hasattr(parameter, "_hp_mapping"):
        mapping = parameter._hp_mapping
        return (
            None
            if mapping is None
            else mapping.get_lp_grad_fragment(parameter._index_in_param_group)
        )
    return parameter.grad if rank == 0 else None
