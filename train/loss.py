"""Cross-entropy over the vocabulary without ever holding (S x V) logits.

S tokens of a row   E hidden size   V vocabulary   C tokens of a chunk
"""

from typing import Any

import torch
import torch.nn.functional as F

from ropewalk.data.dataset import IGNORE

# fp32 logits of one chunk. On a CPU small ones stay in its cache and in memory that is there already: a fifth faster, measured. On a
# GPU each chunk reads the head anew, which few tokens would not pay for.
CHUNK_BYTES = {"cpu": 4 << 20, "cuda": 512 << 20}
LEAST = 128  # tokens


def chunk_tokens(vocab_size: int, device: str = "cpu") -> int:
    return max(LEAST, CHUNK_BYTES.get(device, CHUNK_BYTES["cuda"]) // (4 * vocab_size))


def scaled(x: torch.Tensor, by: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """x (N, E) times a number, in fp32 and then `dtype`: the number itself rounded to bf16 would be off by up to 0.2% for all alike."""
    out = torch.empty_like(x, dtype=dtype)
    for part, to in zip(x.split(1024), out.split(1024), strict=True):
        to.copy_(part.float() * by)
    return out


def add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """total (V, E) += a (V, C) b (C, E), where one dtype allows it without a product as large as the total."""
    if total.dtype == a.dtype:
        torch.addmm(total, a, b, out=total)
    else:
        total += a @ b


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
        step = chunk_tokens(head.shape[0], head.device.type)
        for start in range(0, len(rows), step):
            x, y = rows[start : start + step], targets[start : start + step]
            logits = (x @ head.T).float()
            softmax = torch.softmax(logits, dim=-1)
            # of the largest, whose probability is no less than 1/V: what logsumexp would take three more passes for
            top, at = logits.max(dim=-1, keepdim=True)
            lse = top - softmax.gather(1, at).log()
            nll_of = lse - logits.gather(1, y[:, None])
            each[start : start + step] = nll_of.squeeze(1)
            total += nll_of.sum()
            squares += lse.square().sum()
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
        ctx.save_for_backward(keep, grad_rows, grad_head)
        ctx.shape, ctx.head_dtype = hidden.shape, head.dtype
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
            grad_hidden[keep] = scaled(grad_rows, grad, grad_rows.dtype)
        return (
            grad_hidden,
            None if grad_head is None else scaled(grad_head, grad, ctx.head_dtype),
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
    """Sum over the labels that count, fp32. hidden (S, E), head (V, E), labels (S,) with -100 ignored -> ().

    `nll` (S,) fp32 is filled with the loss of each token in nats, 0 where ignored; it carries no gradient.
    """
    return summed_objective(hidden, head, labels, 0.0, nll=nll)[0]


def summed_objective(
    hidden: torch.Tensor,
    head: torch.Tensor,
    labels: torch.Tensor,
    z_loss: float,
    *,
    nll: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum with `z_loss` x logsumexp^2 added for each label that counts (PaLM, arXiv 2204.02311, section 5), and without it.

    Shapes as `summed_cross_entropy`; only the first carries a gradient.
    """
    if (
        not torch.is_grad_enabled()
    ):  # else the head, a parameter, would be given a gradient for nothing
        hidden, head = hidden.detach(), head.detach()
    found: tuple[torch.Tensor, torch.Tensor] = _ChunkedCrossEntropy.apply(
        hidden, head, labels, nll, z_loss
    )  # type: ignore[no-untyped-call]
    return found


@torch.no_grad()
def token_nll(
    hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per token: negative log-likelihood in nats (0 where ignored), and whether the label is the most likely word.

    hidden (S, E), head (V, E), labels (S,) -> (S,) fp32, (S,) bool.
    """
    nll, hit = [], []
    step = chunk_tokens(head.shape[0], head.device.type)
    for start in range(0, len(hidden), step):
        y = labels[start : start + step]
        logits = (hidden[start : start + step] @ head.T).float()
        nll.append(F.cross_entropy(logits, y, ignore_index=IGNORE, reduction="none"))
        hit.append(logits.argmax(-1) == y)
    return torch.cat(nll), torch.cat(hit)
