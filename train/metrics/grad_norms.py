"""Gradient norms by group of parameters, without gathering a tensor.

Every element of the averaged gradient lies on exactly one rank (ZeRO 1 to 3) or on all of them
(ZeRO 0, counted on rank 0), so each rank's squares are summed in the step's one all-reduce. They
are read after the last backward pass, before clipping.
"""

import math

import torch
from torch import nn

from ropewalk.train.optim.param_groups import GROUPS, group_of
from ropewalk.train.zero.params import local_gradient


@torch.no_grad()
def local_squared_norms(module: nn.Module, rank: int, device: torch.device) -> torch.Tensor:
    """Sum of squares of this rank's part of the gradient by group, (GROUPS,) float64."""
    squares = torch.zeros(len(GROUPS), dtype=torch.float64, device=device)
    for name, parameter in module.named_parameters():
        gradient = local_gradient(parameter, rank) if parameter.requires_grad else None
        if gradient is not None:
            norm = torch.linalg.vector_norm(gradient, dtype=torch.float32).double()
            squares[GROUPS.index(group_of(name))] += norm**2
    return squares


def norms_by_group(squares: torch.Tensor) -> dict[str, float]:
    """The norm of each group that has a gradient, from `squares` (GROUPS,) summed over all
    ranks."""
    return {group: math.sqrt(float(s)) for group, s in zip(GROUPS, squares, strict=True) if s > 0}
