"""Programs of a rank in test_exchange.py: hidden states of a model under Ulysses."""

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from architectures import small_model

from ropewalk.train import attention
from ropewalk.train.attention import ulysses
from ropewalk.train.zero.mesh import Mesh

ENDS = (0, 13, 14, 54, 72)
"""Documents of 13, 1, 40 and 18 tokens. 4 divides their sum."""


def ids(changed: int | None) -> torch.Tensor:
    """(S,), with the token at index `changed` replaced."""
    torch.manual_seed(5)
    tokens = torch.randint(1, 90, (ENDS[-1],))
    if changed is not None:
        tokens[changed] += 1
    return tokens


def hidden_states_and_gradients(
    kind: str,
    changes: dict[str, Any],
    changed: list[int | None],
    dtype: torch.dtype = torch.float32,
) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
    """Local hidden states (s, E) for each changed token, and the full gradients for the first."""
    mesh = Mesh.of(dist.get_world_size())
    model = small_model(kind, changes).to(dtype)
    model.set_attn_implementation(
        attention.register("sdpa", ulysses.kernel_wrapper(model.config, mesh))
    )
    borders = attention.document_borders(torch.tensor(ENDS, dtype=torch.int32))
    size = ENDS[-1] // mesh.sp_size
    local_slice = slice(mesh.sp_rank * size, (mesh.sp_rank + 1) * size)
    positions = torch.cat([torch.arange(b - a) for a, b in zip(ENDS, ENDS[1:], strict=False)])[
        local_slice
    ][None]
    hidden_states = []
    for token in changed:
        inputs = {
            "input_ids": ids(token)[local_slice][None],
            "position_ids": positions,
            "use_cache": False,
            **borders,
        }
        hidden_states.append(model.base_model(**inputs).last_hidden_state[0])
    weighted(hidden_states[0], local_slice).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    for gradient in gradients.values():
        dist.all_reduce(gradient)
    return [x.detach().numpy() for x in hidden_states], {
        name: g.numpy() for name, g in gradients.items()
    }


def by_heads(
    every: list[dict[str, Any]],
) -> list[tuple[list[np.ndarray], dict[str, np.ndarray]]]:
    """The above for a Llama of each of `every`, in double precision; a token of the first document
    changed.
    """
    return [
        hidden_states_and_gradients("Llama", changes, [None, 5], torch.float64) for changes in every
    ]


def weighted(hidden: torch.Tensor, local_slice: slice) -> torch.Tensor:
    """A randomly weighted sum, whose gradient differs by token."""
    torch.manual_seed(9)
    return (hidden * torch.randn(ENDS[-1], hidden.shape[1]).to(hidden)[local_slice]).sum()
