"""What is known to go wrong with a rope plan, before anything is loaded: a line a finding, with rule and way out.

What cannot work is refused where it is read (`plan`, `shape`, `conf.scaling`); here is what works and is likely to disappoint.
"""

import math
from collections.abc import Iterator

import numpy as np

from ropewalk.train.rope.plan import RopePlan

PI_FAR, NTK_FAR, ONE_STEP = 4, 8, 32


def lint(
    plan: RopePlan,
    *,
    architecture: str,
    sliding: bool,
    pretrained: int,
    seq_len: int,
    steps: int,
    pose: int | None = None,
) -> list[str]:
    """Findings in the order a reader should care. `pretrained`: the model's own max_position_embeddings, tokens; `pose`: the
    length that skipped positions cover, tokens."""
    trained = list(_trained(plan, seq_len, steps) if pose is None else _covered(plan, pose, steps))
    if plan.method == "none":
        return trained
    return [
        *_factor(plan, steps),
        *_lengths(plan, pretrained),
        *trained,
        *_architecture(plan, architecture, sliding),
        *_switching(plan),
        *_table(plan),
    ]


def _factor(plan: RopePlan, steps: int) -> Iterator[str]:
    factor = f"rope.factor is {plan.factor:g}"
    if plan.method == "pi" and plan.factor > PI_FAR:
        yield (
            f"{factor}; beyond {PI_FAR} position interpolation crowds neighbouring tokens and short texts pay (arXiv 2306.15595, "
            "section 3.4; arXiv 2309.00071, section 3.1); consider rope=yarn"
        )
    if plan.factor > ONE_STEP:
        yield (
            f"{factor}; beyond {ONE_STEP} in one step the literature trains in stages (YaRN: x16, then x32; LongRoPE: 256K, then 2M: "
            "arXiv 2309.00071, section 4.1; arXiv 2402.13753, section 3.3); extend in two runs, the second from the first's model"
        )
    if plan.method in ("ntk", "dynamic") and plan.factor > NTK_FAR and steps == 0:
        yield (
            f"{factor} and train.steps is 0; without fine-tuning NTK-aware scaling holds for less than its factor, for some dimensions "
            f"go out of bounds (arXiv 2309.00071, section 3.1); beyond {NTK_FAR} train, or use rope=yarn"
        )


def _lengths(plan: RopePlan, pretrained: int) -> Iterator[str]:
    original, target = plan.original_max_position_embeddings, plan.max_position_embeddings
    scaled = plan.base["rope_parameters"].get("rope_type", "default") != "default"
    if original < pretrained and not scaled:
        yield (
            f"rope.original_max_position_embeddings is {original}; the model says {pretrained}: another ramp, and a factor that counts "
            "from there; right for a model whose config names a longer window than it was trained at, else unset it"
        )
    if scaled and original == pretrained < plan.base_window:
        yield (
            f"the model's config has the window {pretrained} for the original one and for its own, and is scaled: taken as trained at "
            f"{pretrained} and read to {plan.base_window}; if its window is the scaled one, set rope.original_max_position_embeddings"
        )
    if not math.isclose(target, original * plan.factor, abs_tol=1e-6):
        yield f"rope.factor is {plan.factor:g}; from {original} tokens it leads to {original * plan.factor:g}, rounded to {target}"


def _trained(plan: RopePlan, seq_len: int, steps: int) -> Iterator[str]:
    """Nothing without training: no length is trained then."""
    target = plan.max_position_embeddings
    if steps and seq_len < target and plan.method != "none":
        yield (
            f"data.seq_len is {seq_len}; the plan reaches {target} tokens, so positions beyond {seq_len} are never trained; "
            "raise data.seq_len, or say train.steps=0 to rescale only"
        )
    if steps and seq_len > target:
        yield (
            f"data.seq_len is {seq_len}; the plan reaches {target} tokens, so documents longer than that are trained beyond the planned "
            "window; lower data.seq_len, or raise rope.factor"
        )


def _covered(plan: RopePlan, pose: int, steps: int) -> Iterator[str]:
    """Under PoSE positions reach `pose`, however short the sequences are."""
    target = plan.max_position_embeddings
    if steps and pose != target:
        missed = (
            f"positions beyond {pose} are never trained"
            if pose < target
            else "positions beyond that are trained"
        )
        yield f"data.pose.target_length is {pose}; the plan reaches {target} tokens, so {missed}; set data.pose.target_length={target}"


def _architecture(plan: RopePlan, architecture: str, sliding: bool) -> Iterator[str]:
    if sliding and plan.layer_type is None:
        yield (
            f"the model ({architecture}) has sliding-window layers that share one rotary table with the others; they are rescaled too, "
            "which they do not need; a model with a table for each layer type (Gemma 3, OLMo 3) avoids it"
        )
    if sliding and plan.layer_type is not None:
        yield (
            f"the model ({architecture}) has sliding-window layers: only the {plan.layer_type} layers are rescaled, and only they carry "
            "what lies further back than the window"
        )
    if plan.qk_head_dim and not math.isclose(plan.attention_factor, 1.0):
        yield (
            f"attention_factor is {plan.attention_factor:.4f}; in {architecture} it reaches the decoupled rotary dimensions only, not the whole "
            "score; with rope=yarn leave it unset: the temperature then goes into the softmax scale"
        )


def _switching(plan: RopePlan) -> Iterator[str]:
    if plan.resting_inv_freq is not None:
        yield (
            f"rope={plan.method} switches its table by the longest position of a forward pass: every document packed beside a long one gets the "
            "long table, and keys in a server's cache keep the table they were made with; a static method has no such seam"
        )
    elif plan.rope_parameters.get("rope_type") == "longrope":
        yield (
            "long_factor and short_factor are the same: short texts get the long table too, as in training; "
            "what that costs inside the original window is in the report"
        )


def _table(plan: RopePlan) -> Iterator[str]:
    before, after = np.array(plan.base["inv_freq"]), np.array(plan.inv_freq)
    if (np.diff(after) >= 0).any():
        i = int(np.flatnonzero(np.diff(after) >= 0)[0])
        yield f"inv_freq[{i + 1}] is {after[i + 1]:.4g}, not below inv_freq[{i}] {after[i]:.4g}; frequencies of a rotary table fall; look at the table"
    elif (after > before * (1 + 1e-9)).any():
        i = int(np.flatnonzero(after > before * (1 + 1e-9))[0])
        yield f"inv_freq[{i}] rises from {before[i]:.4g} to {after[i]:.4g}; extending lowers frequencies; look at the table"
