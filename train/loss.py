"""Cross-entropy over the vocabulary without ever holding (S x V) logits.

S tokens of a row   E hidden size   V vocabulary   C tokens of a chunk
"""

from typing import Any

import torch
import torch.nn.functional as F

IGNORE = -100
CHUNK_BYTES = 64 << 20  # fp32 logits of one chunk


def chunk_tokens(vocab_size: int) -> int:
    return max(64, CHUNK_BYTES // (4 * vocab_size))


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Forward makes both gradients chunk by chunk and keeps only those: (S, E) and (V, E), never (S, V).

    Backward scales both by the incoming gradient, so a later division (accumulation, data parallel) reaches head and body alike.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        head: torch.Tensor,
        labels: torch.Tensor,
        nll: torch.Tensor | None,
        z_loss: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keep = labels != IGNORE
        rows, targets = hidden[keep], labels[keep]
        each = torch.empty(len(rows), dtype=torch.float32, device=hidden.device)
        total, squares = (hidden.new_zeros((), dtype=torch.float32) for _ in range(2))
        # a frozen head's gradient is as large as the head: it is not made
        grad_rows = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        grad_head = torch.zeros_like(head, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        step = chunk_tokens(head.shape[0])
        for start in range(0, len(rows), step):
            x, y = rows[start : start + step], targets[start : start + step]
            logits = (x @ head.T).float()
            lse = torch.logsumexp(logits, dim=-1)
            each[start : start + step] = lse - logits.gather(1, y[:, None]).squeeze(1)
            total += each[start : start + step].sum()
            squares += lse.square().sum()
            if grad_rows is not None or grad_head is not None:
                logits.sub_(lse[:, None]).exp_()  # softmax, in place
                if z_loss:
                    logits.mul_(1 + 2 * z_loss * lse[:, None])
                logits.scatter_add_(1, y[:, None], logits.new_full((len(y), 1), -1.0))
                slope = logits.to(head.dtype)
                if grad_rows is not None:
                    grad_rows[start : start + step] = slope @ head
                if grad_head is not None:
                    grad_head += slope.T @ x
        ctx.save_for_backward(keep, grad_rows, None if grad_head is None else grad_head.to(head.dtype))
        ctx.shape = hidden.shape
        if nll is not None:
            nll.zero_().masked_scatter_(keep, each)
        plain = total.clone()
        ctx.mark_non_differentiable(plain)
        return total + z_loss * squares if z_loss else total, plain

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:  # type: ignore[override]
        keep, grad_rows, grad_head = ctx.saved_tensors
        grad_hidden = None
        if grad_rows is not None:
            grad_hidden = grad_rows.new_zeros(ctx.shape)
            grad_hidden[keep] = grad_rows * grad.to(grad_rows.dtype)
        return grad_hidden, None if grad_head is None else grad_head * grad.to(grad_head.dtype), None, None, None


def summed_cross_entropy(
    hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, *, nll: torch.Tensor | None = None
) -> torch.Tensor:
    """Sum over the labels that count, fp32. hidden (S, E), head (V, E), labels (S,) with -100 ignored -> ().

    `nll` (S,) fp32 is filled with the loss of each token in nats, 0 where ignored; it carries no gradient.
    """
    return summed_objective(hidden, head, labels, 0.0, nll=nll)[0]


def summed_objective(
    hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, z_loss: float, *, nll: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum with `z_loss` x logsumexp^2 added for each label that counts (PaLM, arXiv 2204.02311, section 5), and without it.

    Shapes as `summed_cross_entropy`; only the first carries a gradient.
    """
    if not torch.is_grad_enabled():  # else the head, a parameter, would be given a gradient for nothing
        hidden, head = hidden.detach(), head.detach()
    found: tuple[torch.Tensor, torch.Tensor] = _ChunkedCrossEntropy.apply(hidden, head, labels, nll, z_loss)  # type: ignore[no-untyped-call]
    return found


@torch.no_grad()
def token_nll(hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Per token: negative log-likelihood in nats (0 where ignored), and whether the label is the most likely word.

    hidden (S, E), head (V, E), labels (S,) -> (S,) fp32, (S,) bool.
    """
    nll, hit = [], []
    step = chunk_tokens(head.shape[0])
    for start in range(0, len(hidden), step):
        y = labels[start : start + step]
        logits = (hidden[start : start + step] @ head.T).float()
        nll.append(F.cross_entropy(logits, y, ignore_index=IGNORE, reduction="none"))
        hit.append(logits.argmax(-1) == y)
    return torch.cat(nll), torch.cat(hit)
