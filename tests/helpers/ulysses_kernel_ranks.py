"""Programs of a rank in test_ulysses.py: attention of a slice, and its gradients."""

from types import SimpleNamespace
from typing import Any

import torch
from architectures import small_model
from transformers import LlamaConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.train import attention
from ropewalk.train.attention import ulysses
from ropewalk.train.attention.s2_attn import s2_attention
from ropewalk.train.attention.sdpa import sdpa
from ropewalk.train.zero.mesh import Mesh

TOKENS, SIZE = 48, 8
ENDS = torch.tensor([0, 5, 29, 48], dtype=torch.int32)


def random_inputs(
    heads: int, shared: int, dtype: torch.dtype = torch.float32
) -> list[torch.Tensor]:
    """Query (1, H, S, D), key and value (1, K, S, D), sinks (H,), loss weights (1, S, H, D)."""
    draw = torch.Generator().manual_seed(0)
    shapes = [
        (1, heads, TOKENS, SIZE),
        (1, shared, TOKENS, SIZE),
        (1, shared, TOKENS, SIZE),
        (heads,),
        (1, TOKENS, heads, SIZE),
    ]
    return [torch.randn(shape, generator=draw).to(dtype) for shape in shapes]


def attend(kernel: Any, tensors: list[torch.Tensor], options: dict[str, Any]) -> dict[str, Any]:
    q, k, v, sinks, weights = tensors
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v, sinks)]
    aux = {"s_aux": leaves[3]} if options.get("sinks") else {}
    extra = {"sliding_window": options["window"]} if options.get("window") else {}
    module = SimpleNamespace(training=True, is_causal=True, layer_idx=0)
    output, _ = kernel(
        module,
        *leaves[:3],
        None,
        scaling=SIZE**-0.5,
        **attention.document_borders(options.get("ends", ENDS)),
        **aux,
        **extra,
    )
    (output * weights).sum().backward()
    return {"out": output.detach(), "grads": [x.grad for x in leaves if x.grad is not None]}


def kernel_of(options: dict[str, Any]) -> Any:
    return s2_attention(sdpa, options["s2"]) if options.get("s2") else sdpa


def config(heads: int, shared: int) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=heads * SIZE, num_attention_heads=heads, num_key_value_heads=shared
    )


def attend_slices(cases: list[tuple[int, int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Outputs and gradients of this rank's slice in each case; all ranks share one sequence."""
    mesh = Mesh.of(torch.distributed.get_world_size())
    results = []
    for heads, shared, options in cases:
        wrap = ulysses.kernel_wrapper(config(heads, shared), mesh)
        assert wrap is not None
        q, k, v, sinks, weights = random_inputs(heads, shared, options.get("dtype", torch.float32))
        local_inputs = [x.chunk(mesh.sp_size, dim=2)[mesh.sp_rank] for x in (q, k, v)]
        weights = weights.chunk(mesh.sp_size, dim=1)[mesh.sp_rank]
        results.append(attend(wrap(kernel_of(options)), [*local_inputs, sinks, weights], options))
    return [{"out": f["out"].numpy(), "grads": [g.numpy() for g in f["grads"]]} for f in results]


def errors() -> list[str]:
    """For a layer's other head count and head size, and where ranks do not divide the heads."""
    mesh = Mesh.of(2)
    messages = []
    for work in (
        lambda: _layer(mesh, 8, 4, 4),
        lambda: _layer(mesh, 8, 8, 5),
        lambda: _layer(mesh, 9, 8, 4),
    ):
        try:
            work()
            messages.append("")
        except ConfigError as error:
            messages.append(str(error))
    return messages


def _layer(mesh: Mesh, of_config: int, heads: int, size: int) -> None:
    exchange: Any = ulysses.kernel_wrapper(config(of_config, of_config), mesh)
    q, k, v = (torch.zeros(1, heads, 4, n) for n in (4, 4, size))
    exchange(sdpa)(SimpleNamespace(training=True), q, k, v, None)


def prove() -> str:
    """The line of the kernel's proof; all ranks share a sequence."""
    mesh = Mesh.of(torch.distributed.get_world_size())
    model: Any = small_model("Llama", {})
    wrapper = ulysses.kernel_wrapper(model.config, mesh)
    model.set_attn_implementation(attention.register("sdpa", wrapper))
    return attention.prove_kernel(model, torch.float32, torch.device("cpu"), mesh.sp_size)
