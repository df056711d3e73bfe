"""Norms of this rank's parts of the averaged gradients, where each ZeRO stage has them at hand."""

from collections.abc import Iterator
from typing import Any

import torch

from ropewalk.train.zero.engine import Engine


def local_gradient_norms(engine: Engine, rank: int) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, L2 norm ()) of this rank's part of each trained parameter's averaged gradient.

    Call after a step's last backward pass. A parameter of which this rank has no part is left out;
    at stage 0, where every rank has all of them, only rank 0 returns any. Nothing is waited for.
    """
    stage = engine.zero_optimization_stage()
    if stage == 0:
        return _replicated(engine, rank)
    if engine.zero_offload_optimizer():
        return _offloaded(engine)
    return _stage3(engine.optimizer) if stage == 3 else _stage12(engine)


def _replicated(engine: Engine, rank: int) -> Iterator[tuple[str, torch.Tensor]]:
    if rank != 0:
        return
    for name, parameter in engine.module.named_parameters():
        if parameter.grad is not None:
            yield name, _norm(parameter.grad)


def _stage12(engine: Engine) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in engine.module.named_parameters():
        mapping: Any = getattr(parameter, "_hp_mapping", None)
        if mapping is not None:
            index = parameter._index_in_param_group  # type: ignore[attr-defined]
            yield name, _norm(mapping.get_lp_grad_fragment(index))


def _stage3(zero: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """From the partitions themselves: DeepSpeed's own getter waits for a stream each time."""
    for number, group in enumerate(zero.fp16_groups):
        for parameter, gradient in zip(group, zero.averaged_gradients[number], strict=True):
            yield zero.param_names[parameter], _norm(gradient)


def _offloaded(engine: Engine) -> Iterator[tuple[str, torch.Tensor]]:
    """The norms that DeepSpeed takes on the device before a gradient leaves it.

    The gradients themselves may still be on their way to host memory, and on NVMe DeepSpeed's
    getter would read the gradient and the optimizer states of a whole group for each parameter.
    """
    zero = engine.optimizer
    for name, parameter in engine.module.named_parameters():
        if parameter.requires_grad:
            norm = zero.norm_for_param_grads.get(zero.get_param_id(parameter))
            if norm is not None:
                yield name, norm


def _norm(gradient: torch.Tensor) -> torch.Tensor:
    return torch.linalg.vector_norm(gradient, dtype=torch.float32)
