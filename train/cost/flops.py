"""Model FLOPs of a training step by arithmetic: what the mathematics needs of matrix products, whatever a kernel does.

A product of (m, k) and (k, n) is 2 m k n FLOPs. A backward pass is two products for each of the forward pass, one of them left out
where a weight is frozen (Kaplan et al. 2020, section 2.1: 6 N a token). Attention is counted over the pairs that may see one another:
causal, inside a document, inside the window; so a packed row counts the sum over its documents, not the square of its length.
Not counted: norms, activations, softmax, rotary tables, the optimizer. Recomputation is counted apart (HFU).

    S tokens   n tokens of a document   H heads   D head size   E hidden size   V vocabulary
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Attention:
    """One layer's heads; a multiply and an addition for each dimension of a visible pair, for scores and for values."""

    heads: int
    qk_dim: int
    v_dim: int
    window: int | None = None  # a token sees itself and window - 1 before it

    def flops(self, lengths: Iterable[int]) -> int:
        """Forward FLOPs over documents of `lengths`."""
        return (
            2
            * self.heads
            * (self.qk_dim + self.v_dim)
            * sum(pairs(n, self.window) for n in lengths)
        )


@dataclass(frozen=True)
class Work:
    """What one token, one label and one pair cost in a model."""

    matrices: int  # elements of the matrices that each token passes, of experts the active ones; neither embeddings nor head
    trainable: int  # of them, those with a gradient of their own
    head: int  # V x E
    head_trainable: bool
    layers: tuple[Attention, ...]

    def forward(self, lengths: Sequence[int], labels: int) -> int:
        """FLOPs of a forward pass over documents of `lengths`, `labels` of whose tokens have one that counts."""
        return self.body(lengths) + 2 * self.head * labels

    def body(self, lengths: Sequence[int]) -> int:
        """The forward pass without the head: what activation checkpointing computes again."""
        return 2 * self.matrices * sum(lengths) + sum(
            count * layer.flops(lengths) for layer, count in Counter(self.layers).items()
        )

    def training(self, lengths: Sequence[int], labels: int) -> int:
        """Model FLOPs of forward and backward."""
        frozen = 2 * (self.matrices - self.trainable) * sum(lengths)
        return (
            3 * self.forward(lengths, labels)
            - frozen
            - (0 if self.head_trainable else 2 * self.head * labels)
        )


def pairs(n: int, window: int | None = None) -> int:
    """Pairs (query, key) of a causal document of `n` tokens: n (n + 1) / 2, or fewer inside a window."""
    seen = n if window is None else min(n, window)
    return seen * (seen + 1) // 2 + (n - seen) * seen


def work(model: Any) -> Work:
    """A model's, by the shapes of its parameters (those of ZeRO-3 too, which holds parts) and its config."""
    head = model.get_output_embeddings()
    apart = {
        id(p)
        for m in model.modules()
        if isinstance(m, nn.Embedding) or m is head
        for p in m.parameters()
    }
    body = [
        (p, per_token(name, p, model.config))
        for name, p in model.named_parameters()
        if id(p) not in apart
    ]
    return Work(
        matrices=sum(count for _, count in body),
        trainable=sum(count for p, count in body if p.requires_grad),
        head=math.prod(shape(head.weight)),
        head_trainable=head.weight.requires_grad,
        layers=attention(model.config),
    )


def mlps(model: Any) -> int:
    """Elements of the matrices of the MLPs that each token passes: what a tile that is computed again takes once more."""
    return sum(
        per_token(name, p, model.config) for name, p in model.named_parameters() if ".mlp." in name
    )


def shape(parameter: Any) -> tuple[int, ...]:
    """The whole parameter's, where ZeRO-3 or a quantizer holds it in another."""
    whole = getattr(parameter, "ds_shape", None) or getattr(
        getattr(parameter, "quant_state", None), "shape", None
    )
    return tuple(parameter.shape if whole is None else whole)


def per_token(name: str, parameter: torch.Tensor, config: Any) -> int:
    """Elements that each token is multiplied by: all of a matrix, of stacked experts as many as are active."""
    whole = shape(parameter)
    if name.endswith("bias") or len(whole) < 2:
        return 0
    if len(whole) == 2:
        return math.prod(whole)
    active = getattr(config, "num_experts_per_tok", None) or config.top_k
    return int(active) * math.prod(whole[1:])


def attention(config: Any) -> tuple[Attention, ...]:
    """The layers' heads and windows, read off a config."""
    heads = config.num_attention_heads
    plain = getattr(config, "head_dim", None) or config.hidden_size // heads
    rotary = getattr(
        config, "qk_rope_head_dim", None
    )  # DeepSeek: decoupled dimensions, values of another size
    qk, v = (rotary + config.qk_nope_head_dim, config.v_head_dim) if rotary else (plain, plain)
    return tuple(Attention(heads, qk, v, window) for window in windows(config))


def windows(config: Any) -> list[int | None]:
    """The sliding window of each layer; None: it sees the whole document."""
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    if types:
        return [window if kind == "sliding_attention" else None for kind in types]
    slides = bool(window) and getattr(config, "use_sliding_window", True)
    return [window if slides else None] * config.num_hidden_layers
