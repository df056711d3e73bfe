"""What attention layers are really given: queries and keys with rotation, against the same without, rotated here.

B batch (1)   H heads   S tokens   D head size   d rotary dimensions of a head
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface

from ropewalk.conf.errors import ProofError
from ropewalk.train.rope.methods import Table
from ropewalk.train.rope.plan import RopePlan

NAME = "ropewalk_probe"
TOKENS = 8
ATTENTION = ("full_attention", "sliding_attention", "chunked_attention")
# which pairs of dimensions an architecture's code in transformers turns together (deepseek_v3 sorts them into halves first)
INTERLEAVED = ("glm", "glm4", "cohere", "deepseek_v2", "ernie4_5", "helium")
HALVES = [
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi",
    "phi3",
    "olmo",
    "olmo2",
    "olmo3",
    "gpt_neox",
    "stablelm",
    "deepseek_v3",
    "gpt_oss",
    "granite",
    "starcoder2",
    "nemotron",
    "smollm3",
]


@dataclass(frozen=True)
class LayerInputs:
    """What one attention layer was given."""

    layer: int
    rotates: bool  # False: a layer that is meant to have no positions (NoPE)
    query: torch.Tensor  # (H, S, D) float64
    key: torch.Tensor
    scaling: float | None


def cos_sin(
    module: Any, positions: list[int], layer_type: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """What a rotary module returns at `positions`. Shapes (S, d/2) or (S, d), float64; complex tables are taken apart."""
    device = next(b.device for b in module.buffers())
    words = {} if layer_type is None else {"layer_type": layer_type}
    with torch.no_grad():
        ids = torch.tensor([positions], device=device)
        found = module(
            torch.zeros(1, len(positions), 1, dtype=torch.float32, device=device), ids, **words
        )
    cos, sin = (found.real, found.imag) if isinstance(found, torch.Tensor) else found
    return cos[0].double().cpu().numpy(), sin[0].double().cpu().numpy()


def prove_layers(
    model: nn.Module, modules: dict[str, nn.Module], plan: RopePlan, when: str
) -> int | None:
    """Every attention layer's queries and keys against the plan, all in one layout; the number of layers, None for what is no
    whole model.

    Raises: ProofError that names the layer and the first dimension that differ.
    """
    if not hasattr(model, "set_attn_implementation"):
        return None
    positions = probe_positions(plan)
    ids = torch.arange(TOKENS, device=next(iter(model.parameters())).device)[None] + 1
    with value_only_attention(model) as seen:
        with without_rotation(modules):
            bare = _given(model, seen, ids, positions)
        turned = _given(model, seen, ids, positions)
    _all_seen(model.config, turned, when)
    kinds = getattr(model.config, "layer_types", None)
    failures: list[tuple[int, ProofError]] = []
    for layout in layouts(str(getattr(model.config, "model_type", "")), plan):
        held = 0
        try:
            for before, after in zip(bare, turned, strict=True):
                table = plan.tables()[
                    kinds[after.layer] if plan.layer_type is not None and kinds else None
                ]
                _hold(
                    before,
                    after,
                    table,
                    np.array(positions),
                    plan,
                    layout,
                    f"rope proof {when}: layer {after.layer}",
                )
                held += 1
            return held
        except ProofError as error:
            failures.append((held, error))
    raise max(failures, key=lambda failure: failure[0])[1]


def _all_seen(config: Any, turned: list[LayerInputs], when: str) -> None:
    """Every layer that attends must have asked for its kernel: what a patched one does cannot be seen. Raises: ProofError."""
    kinds = getattr(config, "layer_types", None)
    attend = {n for n in range(config.num_hidden_layers) if not kinds or kinds[n] in ATTENTION}
    missing = sorted(attend - {seen.layer for seen in turned})
    if missing:
        named = ", ".join(map(str, missing))
        raise ProofError(
            f"rope proof {when}: layer(s) {named} did not ask for an attention kernel; their rotation cannot be seen; remove what "
            "replaces their attention, or choose another model"
        )


def probe_positions(plan: RopePlan) -> list[int]:
    """TOKENS positions from the first to the last of the new window, on both sides of the original one."""
    original, last = plan.original_max_position_embeddings, plan.max_position_embeddings - 1
    wanted = [
        0,
        1,
        2,
        original // 3,
        original - 1,
        min(original, last),
        (original + last) // 2,
        last,
    ]
    return sorted(max(0, p) for p in wanted)


@contextmanager
def value_only_attention(model: Any) -> Iterator[list[LayerInputs]]:
    """Attention that hands every value on and looks at nothing: hidden states then do not depend on positions."""
    seen: list[LayerInputs] = []

    def record(
        module: Any, query: Any, key: Any, value: Any, mask: Any = None, **words: Any
    ) -> tuple[Any, None]:
        rotates = bool(getattr(module, "use_rope", True))
        q, k = (x[0].detach().double().cpu() for x in (query, key))
        seen.append(
            LayerInputs(
                int(getattr(module, "layer_idx", len(seen))), rotates, q, k, words.get("scaling")
            )
        )
        groups = query.shape[1] // value.shape[1]
        return value.repeat_interleave(groups, dim=1).transpose(1, 2).contiguous(), None

    AttentionInterface.register(NAME, record)
    AttentionMaskInterface.register(NAME, lambda *args, **words: None)
    before, training = model.config._attn_implementation, model.training
    model.set_attn_implementation(NAME)
    model.eval()
    try:
        yield seen
    finally:
        model.set_attn_implementation(before)
        model.train(training)


@contextmanager
def without_rotation(modules: dict[str, nn.Module]) -> Iterator[None]:
    """Rotary modules that return cos 1 and sin 0."""

    def still(module: Any, inputs: Any, output: Any) -> Any:
        if isinstance(output, torch.Tensor):
            return torch.ones_like(output)
        return torch.ones_like(output[0]), torch.zeros_like(output[1])

    hooks = [m.register_forward_hook(still) for m in modules.values()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _given(
    model: Any, seen: list[LayerInputs], ids: torch.Tensor, positions: list[int]
) -> list[LayerInputs]:
    seen.clear()
    with torch.no_grad():
        model(
            input_ids=ids,
            position_ids=torch.tensor([positions], device=ids.device),
            use_cache=False,
        )
    return sorted(seen, key=lambda s: s.layer)


Rotate = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def rotate_halves(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Pairs (i, i + d/2), as Llama. x (H, S, d), cos and sin (S, d/2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


def rotate_interleaved(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Pairs (2i, 2i + 1), as GLM and GPT-J."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)


def layouts(model_type: str, plan: RopePlan) -> list[tuple[Rotate, bool]]:
    """Rotation, and whether the head's last dimensions are rotated (DeepSeek) or its first; of an architecture that is not in
    the lists, each that is in use: one of them must hold for every layer, for queries and keys alike."""
    known = {
        **dict.fromkeys(INTERLEAVED, [rotate_interleaved]),
        **dict.fromkeys(HALVES, [rotate_halves]),
    }
    return [
        (rotate, plan.qk_head_dim is not None)
        for rotate in known.get(model_type, [rotate_halves, rotate_interleaved])
    ]


def _hold(
    before: LayerInputs,
    after: LayerInputs,
    table: Table,
    positions: np.ndarray,
    plan: RopePlan,
    layout: tuple[Rotate, bool],
    where: str,
) -> None:
    """q and k of one layer. Raises: ProofError."""
    if plan.qk_head_dim and after.scaling is not None:
        wanted = plan.qk_head_dim**-0.5 * plan.softmax_factor
        if abs(after.scaling - wanted) > 1e-5 * wanted:
            raise ProofError(
                f"{where} multiplies its scores by {after.scaling:.6g}; the plan has {wanted:.6g}"
            )
    inv_freq, factor = (
        (table.inv_freq, table.attention_factor) if after.rotates else (table.inv_freq * 0, 1.0)
    )
    if (
        table.resting_inv_freq is not None
        and positions.max() < plan.original_max_position_embeddings
    ):
        inv_freq = table.resting_inv_freq
    angles = torch.from_numpy(positions[:, None] * inv_freq[None, :])
    cos, sin = angles.cos() * factor, angles.sin() * factor
    for name in ("query", "key"):
        x, y = getattr(before, name), getattr(after, name)
        apart = _differs(x, y, layout, cos, sin)
        size = float(x.abs().max())
        coarse = 2.0**-6 if _is_coarse(x) else 0.0
        allowed = size * factor * (2e-5 + coarse + 2.0**-21 * torch.from_numpy(positions).double())
        over = (apart - allowed[None, :, None]).amax(dim=(0, 1))
        if (over > 0).any():
            raise ProofError(
                f"{where} rotates its {name} otherwise than the plan, first in dimension {int(over.gt(0).nonzero()[0])}; "
                "the rotary table does not reach it"
            )


def _differs(
    x: torch.Tensor,
    y: torch.Tensor,
    layout: tuple[Rotate, bool],
    cos: torch.Tensor,
    sin: torch.Tensor,
) -> torch.Tensor:
    """(H, S, D)"""
    rotate, at_the_end = layout
    size = 2 * cos.shape[-1]
    first = x.shape[-1] - size if at_the_end else 0
    wanted = x.clone()
    wanted[..., first : first + size] = rotate(x[..., first : first + size], cos, sin)
    return (y - wanted).abs()


def _is_coarse(x: torch.Tensor) -> bool:
    """Values that bf16 holds exactly: they were computed in it."""
    return bool((x.float().bfloat16().double() == x).all())
