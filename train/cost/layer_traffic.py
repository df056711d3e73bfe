"""What one decoder layer moves through memory outside its matrix products, counted op by op.

The layer of transformers runs forward and backward on the meta device, where an operation has
shapes and no data. Each operation that is neither a matrix product nor attention reads its tensors
once and writes its result once; a view moves nothing. That is what the eager kernels of torch do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface, PreTrainedConfig
from transformers.models.auto import AutoModelForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from ropewalk.train.model.geometry import head_dim, of_depth

TOKENS = 64
PRODUCTS = {"mm", "bmm", "addmm", "_grouped_mm", "baddbmm"}
NO_DATA = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach"}
UNMARKED_VIEWS = {"_unsafe_view"}


@dataclass(frozen=True)
class LayerTraffic:
    """Bytes of one decoder layer a token, without matrix products and attention."""

    forward: float
    backward: float
    saved: float
    """Held between the passes where nothing is computed again; attention's own included."""


class _ElementwiseBytes(TorchDispatchMode):
    """Adds up the bytes that operations read and write, products and views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[-1]
        if name not in PRODUCTS | NO_DATA | UNMARKED_VIEWS and not func.is_view:
            tensors = tree_leaves((args, kwargs, output))
            self.bytes += sum(t.nbytes for t in tensors if isinstance(t, torch.Tensor))
        return output


class _UncountedAttention(torch.autograd.Function):
    """Attention's shapes, strides and saved tensors, without an operation that counts.

    Kernels take and return (S, H, D), so neither the output nor the gradients need a copy.
    """

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        output = q.new_empty(1, q.shape[2], q.shape[1], v.shape[-1])
        ctx.save_for_backward(q, k, v, output, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q, k, v = ctx.saved_tensors[:3]
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _uncounted_attention(
    module: object,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *_: object,
    **__: object,
) -> tuple[torch.Tensor, None]:
    return _UncountedAttention.apply(query, key, value), None  # type: ignore[no-untyped-call]


def layer_traffic(config: PreTrainedConfig, dtype: torch.dtype = torch.bfloat16) -> LayerTraffic:
    """The traffic of the first decoder layer of a causal model with flat `model.layers`."""
    AttentionInterface.register("uncounted", _uncounted_attention)
    one_layer = type(config).from_dict(of_depth(config.to_dict(), 1))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            one_layer, dtype=dtype, attn_implementation="uncounted"
        )
        x = torch.zeros(1, TOKENS, config.hidden_size, dtype=dtype, requires_grad=True)  # type: ignore[attr-defined]
        positions = model.model.rotary_emb(x, torch.arange(TOKENS)[None], *_layer_type(one_layer))
    layer = model.model.layers[0].train()
    weights = {p.untyped_storage()._cdata for p in layer.parameters()}
    with _saved_bytes(weights) as saved, _ElementwiseBytes() as forward:
        output = layer(x, position_embeddings=positions, attention_mask=None)
    with _ElementwiseBytes() as backward:
        output.backward(torch.empty_like(output))
    return LayerTraffic(
        forward.bytes / TOKENS, backward.bytes / TOKENS, sum(saved.values()) / TOKENS
    )


def _layer_type(config: PreTrainedConfig) -> list[str]:
    """What the rotary embedding asks for beside positions: the first layer's type, in a model with
    a table for each type (OLMo 3, Gemma 3)."""
    by_type = "rope_theta" not in config.rope_parameters  # type: ignore[attr-defined]
    return [config.layer_types[0]] if by_type else []  # type: ignore[attr-defined]


def fused_layer_traffic(config: PreTrainedConfig, element_bytes: int = 2) -> LayerTraffic:
    """The same with each norm, addition and gated activation as one kernel, as torch.compile makes
    them: a kernel reads what it needs and writes its result once. Rotary embeddings stay eager.

    E hidden size and I intermediate size of a Llama layer; what is saved stays unfused.
    """
    eager = layer_traffic(config)
    rotary_forward, rotary_backward = _rotary_traffic(config)
    hidden, inner = config.hidden_size, config.intermediate_size  # type: ignore[attr-defined]
    # forward: 2 norms of 2 E, 2 residual sums of 3 E, the gate reads 2 I and writes I. Backward: 2
    # norms of 3 E, 5 sums of gradients of 3 E (2 residual, q + k + v, gate + up), the gate 5 I.
    forward = (2 * 2 + 2 * 3) * hidden + 3 * inner
    backward = (2 * 3 + 5 * 3) * hidden + 5 * inner
    return LayerTraffic(
        forward * element_bytes + rotary_forward,
        backward * element_bytes + rotary_backward,
        eager.saved,
    )


def _rotary_traffic(config: PreTrainedConfig) -> tuple[float, float]:
    """Forward and backward bytes of the rotary embedding of queries and keys, a token."""
    size = head_dim(config)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads  # type: ignore[attr-defined]
    options: dict[str, Any] = {"dtype": torch.bfloat16, "device": "meta"}
    q = torch.zeros(1, heads, TOKENS, size, requires_grad=True, **options)
    k = torch.zeros(1, kv_heads, TOKENS, size, requires_grad=True, **options)
    cos = torch.zeros(1, TOKENS, size, **options)
    with _ElementwiseBytes() as forward:
        outputs = apply_rotary_pos_emb(q, k, cos, cos)
    with _ElementwiseBytes() as backward:
        torch.autograd.backward(outputs, [torch.empty_like(one) for one in outputs])
    return forward.bytes / TOKENS, backward.bytes / TOKENS


@contextmanager
def _saved_bytes(excluded: set[int]) -> Iterator[dict[int, int]]:
    """Bytes of the storages that are saved for the backward pass, those of `excluded` left out."""
    sizes: dict[int, int] = {}
    held: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in excluded:
            sizes[storage._cdata] = storage.nbytes()
            held.append(tensor)  # an address that is freed could be given to another storage
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes
