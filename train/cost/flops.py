"""Model FLOPs of a training step: the matrix products of the mathematics, whatever a kernel does.

A product of (m, k) and (k, n) is 2 m k n FLOPs. A backward pass is two products for each of the
forward pass, one of them left out where a weight is frozen (Kaplan et al. 2020, section 2.1: 6 N a
token). Attention counts the pairs that may see one another: causal, inside a document, inside the
window; so a packed row counts the sum over its documents, not the square of its length. Norms,
activations, softmax, rotary tables and the optimizer are not counted; recomputation is counted
apart (HFU).

    S tokens   n tokens of a document   H heads   D head size   E hidden size   V vocabulary
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ropewalk.train.model.geometry import head_dim, sliding_windows, value_dim
from ropewalk.train.zero.params import full_shape


@dataclass(frozen=True)
class AttentionCost:
    """One layer's attention: a multiply and an add a dimension, for scores and for values."""

    heads: int
    qk_dim: int
    v_dim: int
    window: int | None = None
    """Keys that a query sees, its own included; None: all before it."""

    def flops(self, lengths: Iterable[int]) -> int:
        """Forward FLOPs over documents of `lengths` tokens."""
        num_pairs = sum(visible_pairs(n, self.window) for n in lengths)
        return 2 * self.heads * (self.qk_dim + self.v_dim) * num_pairs


@dataclass(frozen=True)
class ModelCost:
    """What one token, one label and one visible pair cost in a model.

    All methods take the `lengths` of a batch's documents, and `labels`: how many tokens count in
    the loss.
    """

    matrices: int
    """Elements of the matrices that each token passes (of experts the active ones): no embeddings,
    no head."""
    trainable: int
    """Elements of these matrices that have a gradient."""
    head: int
    """V x E."""
    head_trainable: bool
    layers: tuple[AttentionCost, ...]

    def forward_flops(self, lengths: Sequence[int], labels: int) -> int:
        """FLOPs of a forward pass."""
        return self.body_flops(lengths) + 2 * self.head * labels

    def body_flops(self, lengths: Sequence[int]) -> int:
        """The forward pass without the head: activation checkpointing computes it again."""
        return 2 * self.matrices * sum(lengths) + self.attention_flops(lengths)

    def attention_flops(self, lengths: Sequence[int]) -> int:
        """Of all layers' attention in a forward pass."""
        return sum(count * layer.flops(lengths) for layer, count in Counter(self.layers).items())

    def training_flops(self, lengths: Sequence[int], labels: int) -> int:
        """Model FLOPs of the forward and the backward pass."""
        frozen = 2 * (self.matrices - self.trainable) * sum(lengths)
        if not self.head_trainable:
            frozen += 2 * self.head * labels
        return 3 * self.forward_flops(lengths, labels) - frozen


def visible_pairs(n: int, window: int | None) -> int:
    """Pairs (query, key) of a causal document of `n` tokens: n (n + 1) / 2, fewer in a window."""
    width = n if window is None else min(n, window)
    return width * (width + 1) // 2 + (n - width) * width


def model_cost(model: PreTrainedModel) -> ModelCost:
    """The costs of a model by its config and its parameters, which ZeRO 3 may have partitioned."""
    head = model.get_output_embeddings().weight  # type: ignore[union-attr]
    body = [
        (elements_per_token(name, p, model.config), p.requires_grad)
        for name, p in body_parameters(model)
    ]
    return ModelCost(
        matrices=sum(elements for elements, _ in body),
        trainable=sum(elements for elements, trainable in body if trainable),
        head=full_shape(head).numel(),  # type: ignore[arg-type]
        head_trainable=bool(head.requires_grad),
        layers=attention_costs(model.config),
    )


def body_parameters(model: PreTrainedModel) -> list[tuple[str, nn.Parameter]]:
    """Named parameters without embeddings and output head."""
    head = model.get_output_embeddings()
    ends = (m for m in model.modules() if isinstance(m, nn.Embedding) or m is head)
    excluded = {id(p) for module in ends for p in module.parameters()}
    return [(name, p) for name, p in model.named_parameters() if id(p) not in excluded]


def mlp_elements(model: PreTrainedModel) -> int:
    """Elements of the MLPs that each token passes: tiled MLPs compute them again in backward."""
    return sum(
        elements_per_token(name, p, model.config)
        for name, p in model.named_parameters()
        if ".mlp." in name
    )


def elements_per_token(name: str, parameter: torch.Tensor, config: PreTrainedConfig) -> int:
    """Elements that multiply each token: a whole matrix, of stacked experts the active ones."""
    shape = full_shape(parameter)
    if name.endswith("bias") or len(shape) < 2:
        return 0
    if len(shape) == 2:
        return shape.numel()
    active = getattr(config, "num_experts_per_tok", None) or config.top_k  # type: ignore[attr-defined]
    return int(active) * math.prod(shape[1:])


def attention_costs(config: PreTrainedConfig) -> tuple[AttentionCost, ...]:
    """The attention of each layer, read off a config."""
    heads = config.num_attention_heads  # type: ignore[attr-defined]
    sizes = head_dim(config), value_dim(config)
    return tuple(AttentionCost(heads, *sizes, window) for window in sliding_windows(config))


def utilisation(num_flops: float, seconds: float, ranks: int, peak: float | None) -> float | None:
    """Share of the devices' peak that `num_flops` use; None where the peak is not known."""
    return None if peak is None else num_flops / (seconds * ranks * peak)
