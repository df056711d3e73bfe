"""Parts of other programs, in place of ours in a trace: what they allocate, and when.

Each is called once in a child, before the trace, and stays.

    S tokens of a row   E hidden size   I intermediate size   V vocabulary
"""

import importlib
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from ropewalk.train import loss_model
from ropewalk.train.memory.kept_attention import ATTENTION_OPS, KeptAttention, op_name
from ropewalk.train.trace import flops, result, step, zero_events

CONVERSATION = 1300
"""Tokens of a conversation of UltraChat 200k: 6,721 bytes a row by its card, the question twice."""
MORE = 0.03
"""Of the number of conversations, from one step to the next: about its spread at 1,000 of them."""
FAMILIES = {"llama": "Llama", "qwen3": "Qwen3"}


def whole_loss() -> None:
    """transformers' and torchtitan's: fp32 logits of every token."""

    def whole(
        hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        loss = F.cross_entropy((hidden @ head.T).float(), labels, reduction="sum")
        return loss, loss.detach().clone()

    loss_model.summed_objective = whole


def selective() -> None:
    """torchtitan's selective recomputation: attention and every second product are kept."""

    def contexts(_: KeptAttention) -> Any:
        products: Counter[bool] = Counter()

        def policy(context: Any, op: Any, *_: Any, **__: Any) -> CheckpointPolicy:
            if op is torch.ops.aten.mm.default:
                products[context.is_recompute] += 1
                is_kept = products[context.is_recompute] % 2 == 1
            else:
                is_kept = op_name(op) in ATTENTION_OPS
            return CheckpointPolicy.MUST_SAVE if is_kept else CheckpointPolicy.PREFER_RECOMPUTE

        return create_selective_checkpoint_contexts(policy)

    KeptAttention.contexts = contexts  # type: ignore[method-assign]


def fsdp() -> None:
    """FSDP's states: weights and both moments in fp32, divided; no copy of the weights in bf16."""
    ours = result.engine

    def engine(subject: Any) -> Any:
        made = ours(subject)
        share = 4 * -(-subject.sizes.parameters // made.world_size)
        return replace(made, states={"parameters": share, "optimizer": 2 * share})

    result.engine = engine


def float8() -> None:
    """torchtitan's float8: FSDP gathers the weights of the layers' products in one byte an element.

    Its documents of 2024 start every training in fp8 with `enable_fsdp_float8_all_gather`. What the
    products save stays in bf16; their inputs in fp8, and the other order of a weight for the
    backward pass, are gone before the loss, where the peak is, and are not traced.
    """
    ours = zero_events._Gathers.__init__

    def gathers(self: Any, engine: Any, events: Any) -> None:
        sizes = {
            key: -(-size // engine.element_bytes) if key[1].endswith("_proj.weight") else size
            for key, size in engine.sizes.items()
        }
        ours(self, replace(engine, sizes=sizes), events)

    zero_events._Gathers.__init__ = gathers  # type: ignore[method-assign]


def flash3() -> None:
    """flash-attn 3's backward pass on ALST's data: conversations, packed.

    It sums the gradients of queries, keys and values in fp32, with a block of rows more for each
    document (hopper/flash_api.cpp, mha_bwd). How many conversations a step has differs: the second
    traced step has more than the first, so that it finds no block of its size in the cache.
    """
    steps: Counter[str] = Counter()
    run = step._Step.run

    def counted(self: Any) -> None:
        steps["traced"] += 1
        run(self)

    def workspace(func: Any, args: Any) -> list[int]:
        if func._schema.name != flops.BACKWARD:
            return []
        (tokens, heads, size), key_heads = args[1].shape, args[2].shape[1]
        documents = round(tokens / CONVERSATION * (1 + MORE * (steps["traced"] - 1)))
        rows, key_rows = tokens + 64 * documents, tokens + 128 * documents
        sizes = [rows * heads * 4, rows * heads * 4, rows * heads * size * 4]
        return sizes + [key_rows * key_heads * size * 4] * 2 * (key_heads != heads)

    step._Step.run = counted  # type: ignore[method-assign]
    flops.workspace = workspace


def liger() -> None:
    """Liger's kernels, of 0.5.10: norm, gated product, rotary embedding, product with loss."""
    loss_model.summed_objective = _liger_loss
    _put(_Norm, _Gated, _Rotary)


def compiled() -> None:
    """Layers under torch.compile: norm, gated product and rotary embedding are a kernel each, which
    writes a new tensor; products and attention stay."""
    _put(_CompiledNorm, _CompiledGated, _CompiledRotary)


def compiled_loss() -> None:
    """torchtitan's loss under torch.compile, since 2025: logits and their gradient in bf16 only."""

    def objective(
        hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        loss: torch.Tensor = _CompiledLoss.apply(hidden @ head.T)
        return loss, loss.detach().clone()

    loss_model.summed_objective = objective


def _put(norm: Any, gated: Any, rotary: Any) -> None:
    """Put kernels into the models' code."""
    for family, prefix in FAMILIES.items():
        modeling: Any = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
        getattr(modeling, f"{prefix}RMSNorm").forward = lambda self, x: norm.apply(x, self.weight)
        getattr(modeling, f"{prefix}MLP").forward = lambda self, x: self.down_proj(
            gated.apply(self.gate_proj(x), self.up_proj(x))
        )
        modeling.apply_rotary_pos_emb = lambda q, k, cos, sin, **_: rotary.apply(q, k)


class _Norm(torch.autograd.Function):
    """Saves its input and a number a row; the gradient is written over the output's."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, x.new_empty(x.shape[:-1], dtype=torch.float32), weight)
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        weight = ctx.saved_tensors[2]
        return grads[0], torch.empty_like(weight)


class _Gated(torch.autograd.Function):
    """silu(a) * b saves both; their gradients are written over them."""

    @staticmethod
    def forward(ctx: Any, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(a, b)
        return torch.empty_like(a)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        a, b = ctx.saved_tensors
        return a.detach(), b.detach()


class _Rotary(torch.autograd.Function):
    """In place, forward and backward."""

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return q.view_as(q), k.view_as(k)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return grads


class _CompiledNorm(_Norm):
    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.empty_like(grads[0]), torch.empty_like(ctx.saved_tensors[2])


class _CompiledGated(_Gated):
    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        a, b = ctx.saved_tensors
        return torch.empty_like(a), torch.empty_like(b)


class _CompiledRotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.empty_like(q), torch.empty_like(k)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.empty_like(grad) for grad in grads)


class _CompiledLoss(torch.autograd.Function):
    """Saves the logits, (S, V), and two numbers a row."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor) -> torch.Tensor:
        rows = logits.new_empty((len(logits), 2), dtype=torch.float32)
        ctx.save_for_backward(logits, rows)
        return rows[:, 0].sum()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(ctx.saved_tensors[0])


def _liger_loss(
    hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, *_: Any, **__: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    loss: torch.Tensor = _ProductWithLoss.apply(hidden, head)
    return loss, loss.detach().clone()


class _ProductWithLoss(torch.autograd.Function):
    """Both gradients are made in the forward pass, of V / E chunks, in the weights' dtype.

    A chunk's logits are there until the next ones are.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
        tokens, width = hidden.shape
        parts = -(-head.shape[0] // width)
        chunk = min(tokens, 1 << (-(-tokens // parts) - 1).bit_length())
        grad_hidden, grad_head = torch.zeros_like(hidden), torch.zeros_like(head)
        losses = hidden.new_zeros(tokens, dtype=torch.float32)
        for part, into in zip(hidden.split(chunk), grad_hidden.split(chunk), strict=True):
            logits = part @ head.T
            into.copy_(logits @ head)
            grad_head.addmm_(logits.T, part)
        ctx.save_for_backward(grad_hidden, grad_head)
        return losses.sum()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
        grad_hidden, grad_head = ctx.saved_tensors
        return grad_hidden.detach(), grad_head.detach()


PEERS = (whole_loss, compiled_loss, selective, fsdp, float8, compiled, liger, flash3)
ALL = {peer.__name__: peer for peer in PEERS}
