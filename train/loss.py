"""Cross-entropy over the vocabulary that never holds (S x V) logits.

S tokens of a row   E hidden size   V vocabulary   C tokens of a chunk
"""

from typing import Any

import torch

from ropewalk.data.dataset import IGNORE

# Bytes of the fp32 logits of one chunk. On a CPU a small chunk stays in the cache and in memory
# that is already allocated: a fifth faster, measured. On a GPU each chunk reads the head once more,
# which only pays for many tokens.
CHUNK_BYTES = {"cpu": 4 << 20, "cuda": 512 << 20}
MIN_CHUNK_TOKENS = 128


def chunk_tokens(vocab_size: int, device: str = "cpu") -> int:
    return max(MIN_CHUNK_TOKENS, CHUNK_BYTES.get(device, CHUNK_BYTES["cuda"]) // (4 * vocab_size))


def scaled(x: torch.Tensor, factor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """x (N, E) times a scalar, computed in fp32 and rounded to `dtype`.

    A factor rounded to bf16 would change every element by up to 0.2% alike.
    """
    output = torch.empty_like(x, dtype=dtype)
    for part, target in zip(x.split(1024), output.split(1024), strict=True):
        target.copy_(part.float() * factor)
    return output


def add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """total (V, E) += a (V, C) @ b (C, E).

    On CUDA, and with one dtype, without a temporary (V, E), and in bf16 without its rounding.
    """
    if total.dtype == a.dtype:
        torch.addmm(total, a, b, out=total)
    elif total.is_cuda:  # other devices have no product of bf16 that is summed into fp32
        torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        total += a @ b


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Forward computes both gradients chunk by chunk and keeps only them: (S, E) and (V, E).

    Backward scales both by the incoming gradient, so a later division (accumulation, data parallel)
    reaches head and body alike.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        head: torch.Tensor,
        labels: torch.Tensor,
        positions: torch.Tensor,
        nll: torch.Tensor | None,
        z_loss: float,
        hits: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        # selected by index: a mask's number of rows would have to come back from the device
        rows, targets = hidden[positions], labels[positions]
        row_nll = torch.empty(len(rows), dtype=torch.float32, device=hidden.device)
        row_hits = None if hits is None else torch.empty_like(targets, dtype=torch.bool)
        total, squares = (hidden.new_zeros((), dtype=torch.float32) for _ in range(2))
        # a frozen head's gradient would be as large as the head
        grad_rows = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        grad_head = torch.zeros_like(head, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        step = chunk_tokens(head.shape[0], head.device.type)
        for start in range(0, len(rows), step):
            x, y = rows[start : start + step], targets[start : start + step]
            logits = (x @ head.T).float()
            softmax = torch.softmax(logits, dim=-1)
            # logsumexp from the largest logit, whose probability is at least 1/V; torch.logsumexp
            # would take three more passes
            largest, index = logits.max(dim=-1, keepdim=True)
            lse = largest - softmax.gather(1, index).log()
            chunk_nll = lse - logits.gather(1, y[:, None])
            row_nll[start : start + step] = chunk_nll.squeeze(1)
            total += chunk_nll.sum()
            squares += lse.square().sum()
            if row_hits is not None:
                row_hits[start : start + step] = index.squeeze(1) == y
            del logits
            if grad_rows is not None or grad_head is not None:
                if z_loss:
                    softmax.mul_(1 + 2 * z_loss * lse)
                softmax.scatter_add_(1, y[:, None], softmax.new_full((len(y), 1), -1.0))
                slope = softmax.to(head.dtype)
                if grad_rows is not None:
                    grad_rows[start : start + step] = slope @ head
                if grad_head is not None:
                    add_product(grad_head, slope.T, x)
        ctx.save_for_backward(positions, grad_rows, grad_head)
        ctx.shape, ctx.head_dtype = hidden.shape, head.dtype
        if nll is not None:
            nll.zero_().index_copy_(0, positions, row_nll)
        if hits is not None and row_hits is not None:
            hits.zero_().index_copy_(0, positions, row_hits)
        cross_entropy = total.clone()
        ctx.mark_non_differentiable(cross_entropy)
        return total + z_loss * squares if z_loss else total, cross_entropy

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        positions, grad_rows, grad_head = ctx.saved_tensors
        grad_hidden = None
        if grad_rows is not None:
            grad_hidden = grad_rows.new_zeros(ctx.shape)
            grad_hidden.index_copy_(0, positions, scaled(grad_rows, grad, grad_rows.dtype))
        return (
            grad_hidden,
            None if grad_head is None else scaled(grad_head, grad, ctx.head_dtype),
            None,
            None,
            None,
            None,
            None,
        )


def summed_cross_entropy(
    hidden: torch.Tensor,
    head: torch.Tensor,
    labels: torch.Tensor,
    *,
    nll: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum over the valid labels, fp32. hidden (S, E), head (V, E), labels (S,), -100: ignored ->
    ().

    `nll` (S,) fp32 is filled with the loss of each token in nats, 0 where ignored, without a
    gradient.
    """
    return summed_objective(hidden, head, labels, 0.0, nll=nll)[0]


def summed_objective(
    hidden: torch.Tensor,
    head: torch.Tensor,
    labels: torch.Tensor,
    z_loss: float,
    *,
    nll: torch.Tensor | None = None,
    hits: torch.Tensor | None = None,
    label_positions: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The summed loss with the z-loss, and the cross-entropy alone, which carries no gradient.

    The z-loss is `z_loss` x logsumexp^2 of each valid label (PaLM, arXiv 2204.02311, section 5).
    Shapes as in `summed_cross_entropy`. `hits` (S,) bool is filled as `nll` is: whether the label
    is the likeliest token, False where ignored. `label_positions` (N,) int64: where `labels` count,
    in order; None: read from the device, which the host waits for.
    """
    if label_positions is None:
        label_positions = torch.nonzero(labels != IGNORE).squeeze(1)
    if not torch.is_grad_enabled():  # the head, a parameter, would still ask for its gradient
        hidden, head = hidden.detach(), head.detach()
    losses: tuple[torch.Tensor, torch.Tensor] = _ChunkedCrossEntropy.apply(
        hidden, head, labels, label_positions, nll, z_loss, hits
    )  # type: ignore[no-untyped-call]
    return losses
