"""What the ranks of test_exchange.py do."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from architectures import made

from ropewalk.train import attention
from ropewalk.train.attention import ulysses
from ropewalk.train.zero.mesh import Mesh

ENDS = (0, 13, 14, 54, 72)
"""Documents of 13, 1, 40 and 18 tokens; 72 is divided by 4 ranks."""


def ids(changed: int | None) -> torch.Tensor:
    """(S,), one token of which is another where `changed` names it."""
    torch.manual_seed(5)
    found = torch.randint(1, 90, (ENDS[-1],))
    if changed is not None:
        found[changed] += 1
    return found


def states(
    kind: str, changes: dict[str, Any], changed: list[int | None]
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """This rank's slice of the hidden states (s, E) for each changed token, and the gradients of all ranks' for the first one."""
    mesh = Mesh.of(dist.get_world_size())
    model = made(kind, changes)
    model.set_attn_implementation(
        attention.register("sdpa", ulysses.kernel_wrapper(model.config, mesh))
    )
    marks = attention.document_borders(torch.tensor(ENDS, dtype=torch.int32))
    size = ENDS[-1] // mesh.sp_size
    mine = slice(mesh.sp_rank * size, (mesh.sp_rank + 1) * size)
    positions = torch.cat([torch.arange(b - a) for a, b in zip(ENDS, ENDS[1:], strict=False)])[
        mine
    ][None]
    found = []
    for token in changed:
        words = {
            "input_ids": ids(token)[mine][None],
            "position_ids": positions,
            "use_cache": False,
            **marks,
        }
        found.append(model.base_model(**words).last_hidden_state[0])
    weighted(found[0], mine).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for gradient in gradients.values():
        dist.all_reduce(gradient)
    return [x.detach().numpy() for x in found], {name: g.numpy() for name, g in gradients.items()}


def weighted(hidden: torch.Tensor, mine: slice) -> torch.Tensor:
    """A sum in which each number counts differently, so that its gradient tells tokens apart."""
    torch.manual_seed(9)
    return (hidden * torch.randn(ENDS[-1], hidden.shape[1])[mine]).sum()
