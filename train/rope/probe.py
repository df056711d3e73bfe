"""Runs a live model on a few tokens to record what its rotary modules and attention layers compute.

B batch (1)   H heads   K key/value heads   S tokens   D head size
d rotary dimensions of a head
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from ropewalk.train.model.attention_swap import swapped_attention
from ropewalk.train.rope.plan import RopePlan

NAME = "ropewalk_probe"
TOKENS = 8
CosSin = torch.Tensor | tuple[torch.Tensor, torch.Tensor]  # one complex table, or cos and sin


@dataclass(frozen=True)
class LayerInputs:
    """The queries and keys that one attention layer received."""

    index: int  # of the layer
    rotates: bool  # False: a layer that is meant to have no positions (NoPE)
    query: torch.Tensor  # (H, S, D) float64
    key: torch.Tensor  # (K, S, D) float64
    scaling: float | None


def cos_sin(
    module: nn.Module, positions: list[int], layer_type: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin that a rotary module returns at S positions: (S, d/2) or (S, d) each, float64.

    A complex table is split into the two.
    """
    device = next(module.buffers()).device
    kwargs = {} if layer_type is None else {"layer_type": layer_type}
    with torch.no_grad():
        x = torch.zeros(1, len(positions), 1, dtype=torch.float32, device=device)
        output = module(x, torch.tensor([positions], device=device), **kwargs)
    if isinstance(output, torch.Tensor):
        output = output.real, output.imag
    cos, sin = (part[0].double().cpu().numpy() for part in output)
    return cos, sin


def probe_positions(plan: RopePlan) -> list[int]:
    """TOKENS positions over the new window, on both sides of the original one's end."""
    original, last = plan.original_max_position_embeddings, plan.max_position_embeddings - 1
    inside = [0, 1, 2, original // 3, original - 1]
    outside = [min(original, last), (original + last) // 2, last]
    return sorted(max(0, position) for position in inside + outside)


def record_layers(
    model: PreTrainedModel, modules: dict[str, nn.Module], positions: list[int]
) -> tuple[list[LayerInputs], list[LayerInputs]]:
    """The inputs of every attention layer at `positions`, without rotation and with it.

    `modules`: the model's rotary modules.
    """
    with value_only_attention(model) as inputs:
        with without_rotation(modules):
            unrotated = _run(model, inputs, positions)
        return unrotated, _run(model, inputs, positions)


@contextmanager
def value_only_attention(model: PreTrainedModel) -> Iterator[list[LayerInputs]]:
    """Attention that returns each token's own value: hidden states do not depend on positions.

    Yields the list to which each layer's queries and keys are added.
    """
    inputs: list[LayerInputs] = []

    def record(
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """query (B, H, S, D), key (B, K, S, D), value (B, K, S, E) -> (B, S, H, E)."""
        index = int(getattr(module, "layer_idx", len(inputs)))
        rotates = bool(getattr(module, "use_rope", True))
        q, k = (x[0].detach().double().cpu() for x in (query, key))
        inputs.append(LayerInputs(index, rotates, q, k, kwargs.get("scaling")))
        groups = query.shape[1] // value.shape[1]
        return value.repeat_interleave(groups, dim=1).transpose(1, 2).contiguous(), None

    with swapped_attention(model, NAME, record):
        yield inputs


@contextmanager
def without_rotation(modules: dict[str, nn.Module]) -> Iterator[None]:
    """Make rotary modules return cos 1 and sin 0."""

    def identity(module: nn.Module, args: object, output: CosSin) -> CosSin:
        if isinstance(output, torch.Tensor):
            return torch.ones_like(output)
        return torch.ones_like(output[0]), torch.zeros_like(output[1])

    hooks = [module.register_forward_hook(identity) for module in modules.values()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _run(
    model: PreTrainedModel, inputs: list[LayerInputs], positions: list[int]
) -> list[LayerInputs]:
    """The inputs of one forward pass, by layer; `inputs` is the recorder's list."""
    inputs.clear()
    device = next(model.parameters()).device
    ids = torch.arange(1, TOKENS + 1, device=device)
    position_ids = torch.tensor([positions], device=device)
    with torch.no_grad():
        model(input_ids=ids[None], position_ids=position_ids, use_cache=False)
    return sorted(inputs, key=lambda layer_inputs: layer_inputs.index)
