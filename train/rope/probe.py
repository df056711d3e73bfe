"""The queries and keys that attention layers receive, rotated and not, held against the plan.

B batch (1)   H heads   K key/value heads   S tokens   D head size
d rotary dimensions of a head
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ropewalk.conf.errors import ProofError
from ropewalk.conf.rope_methods import Table
from ropewalk.train.model.attention_swap import swapped_attention
from ropewalk.train.rope.plan import RopePlan

NAME = "ropewalk_probe"
TOKENS = 8
ATTENTION_LAYERS = ("full_attention", "sliding_attention", "chunked_attention")
# The pairs of dimensions that an architecture's code in transformers rotates together.
# deepseek_v3 sorts interleaved pairs into halves before it rotates.
INTERLEAVED = ("glm", "glm4", "cohere", "deepseek_v2", "ernie4_5", "helium")
HALVES = (
    *("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2"),
    *("gemma3_text", "phi", "phi3", "olmo", "olmo2", "olmo3", "gpt_neox", "stablelm"),
    *("deepseek_v3", "gpt_oss", "granite", "starcoder2", "nemotron", "smollm3"),
)
Rotate = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class LayerInputs:
    """The queries and keys that one attention layer received."""

    layer: int
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
    device = next(b.device for b in module.buffers())
    kwargs = {} if layer_type is None else {"layer_type": layer_type}
    with torch.no_grad():
        ids = torch.tensor([positions], device=device)
        x = torch.zeros(1, len(positions), 1, dtype=torch.float32, device=device)
        output = module(x, ids, **kwargs)
    if isinstance(output, torch.Tensor):
        output = output.real, output.imag
    cos, sin = (part[0].double().cpu().numpy() for part in output)
    return cos, sin


def prove_layers(
    model: PreTrainedModel, modules: dict[str, nn.Module], plan: RopePlan, when: str
) -> int:
    """Hold every attention layer's queries and keys against the plan, all in one layout.

    `modules`: the model's rotary modules. Returns the number of layers.
    Raises: ProofError that names the layer and the first dimension that differ.
    """
    positions = probe_positions(plan)
    with value_only_attention(model) as inputs:
        with without_rotation(modules):
            unrotated = _layer_inputs(model, inputs, positions)
        rotated = _layer_inputs(model, inputs, positions)
    _check_all_layers(model.config, rotated, when)
    failures: list[tuple[int, ProofError]] = []
    for layout in layouts(str(model.config.model_type), plan):
        num_proved = 0
        try:
            for unrotated_layer, rotated_layer in zip(unrotated, rotated, strict=True):
                table = _table_of_layer(model.config, rotated_layer.layer, plan)
                where = f"rope proof {when}: layer {rotated_layer.layer}"
                _check_layer(
                    unrotated_layer, rotated_layer, table, np.array(positions), plan, layout, where
                )
                num_proved += 1
            return num_proved
        except ProofError as error:
            failures.append((num_proved, error))
    # the layout that fitted most layers
    raise max(failures, key=lambda failure: failure[0])[1]


def _table_of_layer(config: PreTrainedConfig, layer: int, plan: RopePlan) -> Table:
    layer_types = getattr(config, "layer_types", None)
    if plan.layer_type is None or not layer_types:
        return plan.tables()[None]
    return plan.tables()[layer_types[layer]]


def _check_all_layers(config: PreTrainedConfig, inputs: list[LayerInputs], when: str) -> None:
    """Every layer that attends must have called its kernel.

    Raises: ProofError when a patched layer did not, because its rotation cannot be read.
    """
    layer_types = getattr(config, "layer_types", None)
    expected = {
        layer
        for layer in range(config.num_hidden_layers)  # type: ignore[attr-defined]
        if not layer_types or layer_types[layer] in ATTENTION_LAYERS
    }
    missing = sorted(expected - {layer_inputs.layer for layer_inputs in inputs})
    if missing:
        raise ProofError(
            f"rope proof {when}: layer(s) {', '.join(map(str, missing))} did not ask for an "
            "attention kernel; their rotation cannot be seen; remove what replaces their "
            "attention, or choose another model"
        )


def probe_positions(plan: RopePlan) -> list[int]:
    """TOKENS positions over the new window, on both sides of the original one's end."""
    original, last = (
        plan.original_max_position_embeddings,
        plan.max_position_embeddings - 1,
    )
    inside = [0, 1, 2, original // 3, original - 1]
    outside = [min(original, last), (original + last) // 2, last]
    return sorted(max(0, position) for position in inside + outside)


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
        layer = int(getattr(module, "layer_idx", len(inputs)))
        rotates = bool(getattr(module, "use_rope", True))
        q, k = (x[0].detach().double().cpu() for x in (query, key))
        inputs.append(LayerInputs(layer, rotates, q, k, kwargs.get("scaling")))
        groups = query.shape[1] // value.shape[1]
        return value.repeat_interleave(groups, dim=1).transpose(1, 2).contiguous(), None

    with swapped_attention(model, NAME, record):
        yield inputs


@contextmanager
def without_rotation(modules: dict[str, nn.Module]) -> Iterator[None]:
    """Make rotary modules return cos 1 and sin 0."""

    def identity(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, torch.Tensor):
            return torch.ones_like(output)
        return torch.ones_like(output[0]), torch.zeros_like(output[1])

    hooks = [module.register_forward_hook(identity) for module in modules.values()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _layer_inputs(
    model: PreTrainedModel, inputs: list[LayerInputs], positions: list[int]
) -> list[LayerInputs]:
    """What the layers receive in one forward pass, by layer; `inputs` is the recorder's list."""
    inputs.clear()
    device = next(iter(model.parameters())).device
    ids = torch.arange(1, TOKENS + 1, device=device)
    position_ids = torch.tensor([positions], device=device)
    with torch.no_grad():
        model(input_ids=ids[None], position_ids=position_ids, use_cache=False)
    return sorted(inputs, key=lambda layer_inputs: layer_inputs.layer)


def rotate_halves(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Pairs (i, i + d/2), as Llama. x (H, S, d), cos and sin (S, d/2) -> (H, S, d)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def rotate_interleaved(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Pairs (2i, 2i + 1), as GLM and GPT-J. x (H, S, d), cos and sin (S, d/2) -> (H, S, d)."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)


def layouts(model_type: str, plan: RopePlan) -> list[tuple[Rotate, bool]]:
    """The rotations an architecture may have, and whether it rotates a head's last dimensions.

    DeepSeek rotates the last dimensions, the others the first. An architecture in neither list gets
    both rotations: one of them must hold for every layer, for queries and keys alike.
    """
    rotations: list[Rotate] = [rotate_halves, rotate_interleaved]
    if model_type in HALVES:
        rotations = [rotate_halves]
    elif model_type in INTERLEAVED:
        rotations = [rotate_interleaved]
    return [(rotate, plan.qk_head_dim is not None) for rotate in rotations]


def _check_layer(
    unrotated: LayerInputs,
    rotated: LayerInputs,
    table: Table,
    positions: np.ndarray,
    plan: RopePlan,
    layout: tuple[Rotate, bool],
    where: str,
) -> None:
    """Queries, keys and scaling of one layer at `positions` (S,). Raises: ProofError."""
    if plan.qk_head_dim and rotated.scaling is not None:
        planned = plan.qk_head_dim**-0.5 * plan.softmax_factor
        if abs(rotated.scaling - planned) > 1e-5 * planned:
            raise ProofError(
                f"{where} multiplies its scores by {rotated.scaling:.6g}; the plan has "
                f"{planned:.6g}"
            )
    factor = table.attention_factor if rotated.rotates else 1.0
    cos, sin = _planned_cos_sin(rotated.rotates, table, positions, plan)
    for name in ("query", "key"):
        x, y = getattr(unrotated, name), getattr(rotated, name)
        error = _rotation_error(x, y, layout, cos, sin)
        coarse = 2.0**-6 if _is_bf16(x) else 0.0
        relative = 2e-5 + coarse + 2.0**-21 * torch.from_numpy(positions).double()
        allowed = float(x.abs().max()) * factor * relative
        excess = (error - allowed[None, :, None]).amax(dim=(0, 1))
        if (excess > 0).any():
            dimension = int(excess.gt(0).nonzero()[0])
            raise ProofError(
                f"{where} rotates its {name} otherwise than the plan, first in dimension "
                f"{dimension}; the rotary table does not reach it"
            )


def _planned_cos_sin(
    rotates: bool, table: Table, positions: np.ndarray, plan: RopePlan
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin (S, d/2) float64 at `positions` (S,); 1 and 0 for a layer without positions."""
    inv_freq, factor = table.inv_freq, table.attention_factor
    if not rotates:
        inv_freq, factor = inv_freq * 0, 1.0
    short_text = positions.max() < plan.original_max_position_embeddings
    if table.short_inv_freq is not None and short_text:
        inv_freq = table.short_inv_freq
    angles = torch.from_numpy(positions[:, None] * inv_freq[None, :])
    return angles.cos() * factor, angles.sin() * factor


def _rotation_error(
    x: torch.Tensor,
    y: torch.Tensor,
    layout: tuple[Rotate, bool],
    cos: torch.Tensor,
    sin: torch.Tensor,
) -> torch.Tensor:
    """Distance of y from x rotated; x and y (H, S, D), cos and sin (S, d/2) -> (H, S, D)."""
    rotate, at_the_end = layout
    size = 2 * cos.shape[-1]
    first = x.shape[-1] - size if at_the_end else 0
    expected = x.clone()
    expected[..., first : first + size] = rotate(x[..., first : first + size], cos, sin)
    return (y - expected).abs()


def _is_bf16(x: torch.Tensor) -> bool:
    """Whether bf16 holds all values exactly, so that they were computed in it."""
    return bool((x.float().bfloat16().double() == x).all())
