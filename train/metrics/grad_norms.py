"""The gradient's norm by group of parameters, from the parts that each rank holds: no tensor is gathered.

Every element of the averaged gradient lies in one rank's part (ZeRO 1 to 3) or in all of them (ZeRO 0, counted on rank 0), so the squares
are summed over the parts at once with everything else that the ranks tell. Read after the last backward pass, before clipping.
"""

import math
from typing import Any

import torch

from ropewalk.train.optim.param_groups import GROUPS, group_of
from ropewalk.train.zero.params import local_gradient


@torch.no_grad()
def local_squares(module: Any, rank: int, device: torch.device) -> torch.Tensor:
    """Sum of squares of this rank's parts by group, (GROUPS,) float64."""
    found = torch.zeros(len(GROUPS), dtype=torch.float64, device=device)
    for name, parameter in module.named_parameters():
        part = local_gradient(parameter, rank) if parameter.requires_grad else None
        if part is not None:
            found[GROUPS.index(group_of(name))] += (
                torch.linalg.vector_norm(part, dtype=torch.float32).double() ** 2
            )
    return found


def norms(squares: torch.Tensor) -> dict[str, float]:
    """By group, of those that have parameters with a gradient."""
    return {group: math.sqrt(float(s)) for group, s in zip(GROUPS, squares, strict=True) if s > 0}
