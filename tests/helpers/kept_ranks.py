"""Kept attention between Ulysses' exchanges, as the ranks of test_kept_attention.py run it."""

from typing import Any

import numpy as np
import torch
from models import packed, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from ropewalk.train import attention
from ropewalk.train.attention import ulysses
from ropewalk.train.memory import activation_checkpointing
from ropewalk.train.memory.kept_attention import ATTENTION_OPS, KeptAttention
from ropewalk.train.zero.mesh import Mesh

LENGTHS = (13, 1, 30, 20)


class CountedOps(TorchDispatchMode):
    """Counts the operations that run, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition(".")[0]
        self.counts[name] = self.counts.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


def exchanged_over_three_heads() -> list[tuple[np.ndarray, dict[str, int]]]:
    """Which two ranks do not divide: keys are gathered as well."""
    heads = {"num_attention_heads": 3, "num_key_value_heads": 1, "hidden_size": 48}
    return exchanged([ATTENTION_OPS], **heads)


def exchanged(
    kept_ops: list[frozenset[str]], **changes: Any
) -> list[tuple[np.ndarray, dict[str, int]]]:
    """This rank's gradients and operations with nothing kept, and with each of `kept_ops`.

    `changes`: of the model's config.
    """
    mesh = Mesh.of(2)
    row, _ = packed(list(LENGTHS), sum(LENGTHS))
    borders = attention.document_borders(torch.from_numpy(row.cu_seqlens))
    ids, positions = (
        torch.from_numpy(x).chunk(2)[mesh.rank][None] for x in (row.input_ids, row.position_ids)
    )
    results = []
    for kept in (None, *map(KeptAttention, kept_ops)):
        model = tiny_model(**changes).train()
        wrapper = ulysses.kernel_wrapper(model.config, mesh)
        model.set_attn_implementation(attention.register("sdpa", wrapper))
        activation_checkpointing.enable(model, offload=False, kept=kept)
        with CountedOps() as ops:
            output = model.model(
                input_ids=ids, position_ids=positions, use_cache=False, **borders
            ).last_hidden_state
            output.square().sum().backward()
        flat = torch.cat([p.grad.flatten() for p in model.model.parameters()])
        results.append((flat.numpy(), ops.counts))
    return results
