"""The third check of the proof: every attention layer's queries and keys, rotated by the plan.

H heads   S tokens   D head size   d rotary dimensions of a head
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ropewalk.conf.errors import ProofError
from ropewalk.conf.rope_methods import Table
from ropewalk.train.rope import probe
from ropewalk.train.rope.plan import RopePlan
from ropewalk.train.rope.probe import LayerInputs

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


@contextmanager
def error_prefix(prefix: str) -> Iterator[None]:
    """Put `prefix` before the message of a ProofError."""
    try:
        yield
    except ProofError as error:
        raise ProofError(f"{prefix}{error}") from None


def prove_layers(
    model: PreTrainedModel, modules: dict[str, nn.Module], plan: RopePlan, when: str
) -> int:
    """Hold every attention layer's queries and keys against the plan, all in one layout.

    `modules`: the model's rotary modules. Returns the number of layers.
    Raises: ProofError that names the layer and the first dimension that differ.
    """
    positions = probe.probe_positions(plan)
    unrotated, rotated = probe.record_layers(model, modules, positions)
    _refuse_missing_layers(model.config, rotated, when)
    failures: list[tuple[int, ProofError]] = []
    for rotate in rotations(str(model.config.model_type)):
        num_proved = 0
        try:
            for unrotated_layer, layer in zip(unrotated, rotated, strict=True):
                table = _table_of_layer(model.config, layer.index, plan)
                with error_prefix(f"rope proof {when}: layer {layer.index}"):
                    _check_layer(unrotated_layer, layer, table, np.array(positions), plan, rotate)
                num_proved += 1
            return num_proved
        except ProofError as error:
            failures.append((num_proved, error))
    # the layout that fitted most layers
    raise max(failures, key=lambda failure: failure[0])[1]


def _refuse_missing_layers(config: PreTrainedConfig, inputs: list[LayerInputs], when: str) -> None:
    """Every layer that attends must have called its kernel.

    Raises: ProofError when a patched layer did not, because its rotation cannot be read.
    """
    layer_types = getattr(config, "layer_types", None)
    expected = {
        layer
        for layer in range(config.num_hidden_layers)  # type: ignore[attr-defined]
        if not layer_types or layer_types[layer] in ATTENTION_LAYERS
    }
    if missing := sorted(expected - {layer_inputs.index for layer_inputs in inputs}):
        raise ProofError(
            f"rope proof {when}: layer(s) {', '.join(map(str, missing))} did not ask for an "
            "attention kernel; their rotation cannot be seen; remove what replaces their "
            "attention, or choose another model"
        )


def _table_of_layer(config: PreTrainedConfig, layer: int, plan: RopePlan) -> Table:
    layer_types = getattr(config, "layer_types", None)
    if plan.layer_type is None or not layer_types:
        return plan.tables()[None]
    return plan.tables()[layer_types[layer]]


def rotate_halves(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Pairs (i, i + d/2), as Llama. x (H, S, d), cos and sin (S, d/2) -> (H, S, d)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def rotate_interleaved(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Pairs (2i, 2i + 1), as GLM and GPT-J. x (H, S, d), cos and sin (S, d/2) -> (H, S, d)."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)


def rotations(model_type: str) -> list[Rotate]:
    """The rotations that an architecture may have.

    An architecture in neither list gets both: one of them must hold for every layer, for queries
    and keys alike.
    """
    if model_type in HALVES:
        return [rotate_halves]
    if model_type in INTERLEAVED:
        return [rotate_interleaved]
    return [rotate_halves, rotate_interleaved]


def _check_layer(
    unrotated: LayerInputs,
    rotated: LayerInputs,
    table: Table,
    positions: np.ndarray,
    plan: RopePlan,
    rotate: Rotate,
) -> None:
    """Queries, keys and scaling of one layer at `positions` (S,). Raises: ProofError."""
    if plan.qk_head_dim and rotated.scaling is not None:
        planned = plan.qk_head_dim**-0.5 * plan.softmax_factor
        if abs(rotated.scaling - planned) > 1e-5 * planned:
            raise ProofError(
                f" multiplies its scores by {rotated.scaling:.6g}; the plan has {planned:.6g}"
            )
    if not rotated.rotates:
        table = Table(table.inv_freq * 0)  # cos 1, sin 0
    cos, sin = _planned_cos_sin(table, positions, plan)
    for name in ("query", "key"):
        x, y = getattr(unrotated, name), getattr(rotated, name)
        error = (y - _rotated_by_plan(x, rotate, cos, sin, plan)).abs()
        coarse = 2.0**-6 if _is_bf16(x) else 0.0
        relative = 2e-5 + coarse + 2.0**-21 * torch.from_numpy(positions).double()
        allowed = float(x.abs().max()) * table.attention_factor * relative
        excess = (error - allowed[None, :, None]).amax(dim=(0, 1))
        if (excess > 0).any():
            raise ProofError(
                f" rotates its {name} otherwise than the plan, first in dimension "
                f"{int(excess.gt(0).nonzero()[0])}; the rotary table does not reach it"
            )


def _planned_cos_sin(
    table: Table, positions: np.ndarray, plan: RopePlan
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin (S, d/2) float64 at `positions` (S,)."""
    inv_freq = table.inv_freq
    short_text = positions.max() < plan.original_max_position_embeddings
    if table.short_inv_freq is not None and short_text:
        inv_freq = table.short_inv_freq
    angles = torch.from_numpy(positions[:, None] * inv_freq[None, :])
    return angles.cos() * table.attention_factor, angles.sin() * table.attention_factor


def _rotated_by_plan(
    x: torch.Tensor, rotate: Rotate, cos: torch.Tensor, sin: torch.Tensor, plan: RopePlan
) -> torch.Tensor:
    """x (H, S, D), cos and sin (S, d/2) -> (H, S, D).

    DeepSeek rotates a head's last dimensions, the others its first.
    """
    size = 2 * cos.shape[-1]
    first = x.shape[-1] - size if plan.qk_head_dim else 0
    expected = x.clone()
    expected[..., first : first + size] = rotate(x[..., first : first + size], cos, sin)
    return expected


def _is_bf16(x: torch.Tensor) -> bool:
    """Whether bf16 holds all values exactly, so that they were computed in it."""
    return bool((x.float().bfloat16().double() == x).all())
