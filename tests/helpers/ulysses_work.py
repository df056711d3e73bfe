"""What the ranks of test_ulysses.py do: attention of a slice, through the exchange, and the gradients of what went in."""

from types import SimpleNamespace
from typing import Any

import torch
from transformers import LlamaConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.train import attention
from ropewalk.train.attention import ulysses
from ropewalk.train.attention.s2_attn import s2_attention
from ropewalk.train.attention.sdpa import sdpa
from ropewalk.train.zero.mesh import Mesh

TOKENS, SIZE = 48, 8
ENDS = torch.tensor([0, 5, 29, 48], dtype=torch.int32)


def given(heads: int, shared: int) -> list[torch.Tensor]:
    """Query (1, H, S, D), key and value (1, K, S, D), sinks (H,), and what the loss multiplies the result with (1, S, H, D)."""
    draw = torch.Generator().manual_seed(0)
    shapes = [
        (1, heads, TOKENS, SIZE),
        (1, shared, TOKENS, SIZE),
        (1, shared, TOKENS, SIZE),
        (heads,),
        (1, TOKENS, heads, SIZE),
    ]
    return [torch.randn(shape, generator=draw) for shape in shapes]


def attend(kernel: Any, tensors: list[torch.Tensor], words: dict[str, Any]) -> dict[str, Any]:
    q, k, v, sinks, weights = tensors
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v, sinks)]
    aux = {"s_aux": leaves[3]} if words.get("sinks") else {}
    extra = {"sliding_window": words["window"]} if words.get("window") else {}
    module = SimpleNamespace(training=True, is_causal=True, layer_idx=0)
    out, _ = kernel(
        module,
        *leaves[:3],
        None,
        scaling=SIZE**-0.5,
        **attention.document_borders(ENDS),
        **aux,
        **extra,
    )
    (out * weights).sum().backward()
    return {"out": out.detach(), "grads": [x.grad for x in leaves if x.grad is not None]}


def kernel_of(words: dict[str, Any]) -> Any:
    return s2_attention(sdpa, words["s2"]) if words.get("s2") else sdpa


def config(heads: int, shared: int) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=heads * SIZE, num_attention_heads=heads, num_key_value_heads=shared
    )


def slices(cases: list[tuple[int, int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """This rank's slice of each case, all ranks being of one sequence."""
    mesh = Mesh.of(torch.distributed.get_world_size())
    found = []
    for heads, shared, words in cases:
        wrap = ulysses.kernel_wrapper(config(heads, shared), mesh)
        assert wrap is not None
        q, k, v, sinks, weights = given(heads, shared)
        mine = [x.chunk(mesh.sp_size, dim=2)[mesh.sp_rank] for x in (q, k, v)]
        weights = weights.chunk(mesh.sp_size, dim=1)[mesh.sp_rank]
        found.append(attend(wrap(kernel_of(words)), [*mine, sinks, weights], words))
    return [{"out": f["out"].numpy(), "grads": [g.numpy() for g in f["grads"]]} for f in found]


def refused() -> list[str]:
    """A model whose heads do not divide, a layer of other heads than the config says, and one whose values have another size."""
    mesh = Mesh.of(2)
    said = []
    for work in (
        lambda: ulysses.kernel_wrapper(config(9, 3), mesh),
        lambda: _layer(mesh, 4, 4),
        lambda: _layer(mesh, 8, 5),
    ):
        try:
            work()
            said.append("")
        except ConfigError as error:
            said.append(str(error))
    return said


def _layer(mesh: Mesh, heads: int, size: int) -> None:
    exchange: Any = ulysses.kernel_wrapper(config(8, 8), mesh)
    q, k, v = (torch.zeros(1, heads, 4, n) for n in (4, 4, size))
    exchange(sdpa)(SimpleNamespace(training=True), q, k, v, None)
