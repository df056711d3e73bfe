"""Warnings about a rope plan before anything is loaded: a line each, with rule and way out.

What cannot work is refused where it is read (`plan`, `model_config`, `conf.rope_methods`). The lint
warns of what works and is likely to disappoint.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ropewalk.train.rope.plan import RopePlan

STRUCTURE = {
    *("rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings"),
    *("long_factor", "short_factor", "max_position_embeddings"),
}
"""Words of `rope_parameters` that a plan is expected to set."""
WORD_DEFAULTS = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}
"""What transformers takes for YaRN's words that are unset."""
MAX_PI_FACTOR = 4
MAX_UNTRAINED_NTK_FACTOR = 8
MAX_SINGLE_STEP_FACTOR = 32


def lint(
    plan: RopePlan,
    *,
    architecture: str,
    sliding: bool,
    pretrained: int,
    seq_len: int,
    steps: int | None,
    pose: int | None = None,
    before: int | None = None,
) -> list[str]:
    """The warnings, the most serious first.

    `sliding`: the model has sliding-window layers. `pretrained`: its max_position_embeddings.
    `pose`: the length that skipped positions cover. `before`: the window of the phase before.
    Lengths in tokens. `steps`: None while the training is not known.
    """
    lengths = _trained_length(plan, seq_len, steps)
    if pose is not None:
        lengths = _pose_length(plan, pose, steps)
    if plan.method == "none":
        return list(lengths)
    return [
        *_factor(plan, steps),
        *_step(plan, before),
        *_windows(plan, pretrained),
        *_changed_words(plan),
        *lengths,
        *_architecture(plan, architecture, sliding),
        *_short_and_long_table(plan),
        *_frequencies(plan),
    ]


def _factor(plan: RopePlan, steps: int | None) -> Iterator[str]:
    factor = f"rope.factor is {plan.factor:g}"
    if plan.method == "pi" and plan.factor > MAX_PI_FACTOR:
        yield (
            f"{factor}; beyond {MAX_PI_FACTOR} position interpolation crowds neighbouring tokens "
            "and short texts pay (arXiv 2306.15595, section 3.4; arXiv 2309.00071, section 3.1); "
            "consider rope=yarn"
        )
    untrained_ntk = plan.method in ("ntk", "dynamic") and steps == 0
    if untrained_ntk and plan.factor > MAX_UNTRAINED_NTK_FACTOR:
        yield (
            f"{factor} and train.steps is 0; without fine-tuning NTK-aware scaling holds for less "
            "than its factor, for some dimensions go out of bounds (arXiv 2309.00071, section "
            f"3.1); beyond {MAX_UNTRAINED_NTK_FACTOR} train, or use rope=yarn"
        )


def _step(plan: RopePlan, before: int | None) -> Iterator[str]:
    """A window far above the one that the model comes with: the phase before's, or the base's."""
    scaled = plan.base["rope_parameters"]["rope_type"] != "default"
    start = before or (plan.base_window if scaled else plan.original_max_position_embeddings)
    step = plan.max_position_embeddings / start
    if step > MAX_SINGLE_STEP_FACTOR:
        of = "the phase before" if before else "the base"
        yield (
            f"rope.factor is {plan.factor:g}; {plan.max_position_embeddings} tokens are "
            f"{step:.4g} times the window of {of}, and beyond {MAX_SINGLE_STEP_FACTOR} in one step "
            "the literature trains in stages (YaRN: x16, then x32; LongRoPE: 256K, then 2M: arXiv "
            "2309.00071, section 4.1; arXiv 2402.13753, section 3.3); extend in phases, each from "
            "the model of the one before"
        )


def _windows(plan: RopePlan, pretrained: int) -> Iterator[str]:
    original, target = (plan.original_max_position_embeddings, plan.max_position_embeddings)
    scaled = plan.base["rope_parameters"].get("rope_type", "default") != "default"
    if original < pretrained and not scaled:
        yield (
            f"rope.original_max_position_embeddings is {original}; its config has {pretrained}: "
            "another ramp, and a factor that counts from there; right for a model whose config "
            "names a longer window than it was trained at, else unset it"
        )
    if scaled and original == pretrained < plan.base_window:
        yield (
            f"the model's config has the window {pretrained} for the original one and for its own, "
            f"and is scaled: taken as trained at {pretrained} and read to {plan.base_window}; if "
            "its window is the scaled one, set rope.original_max_position_embeddings"
        )
    if original > pretrained and not scaled:
        yield (
            f"rope.original_max_position_embeddings is {original}; its config has {pretrained}: "
            "the ramp keeps dimensions for a window that the model was not trained at; as in "
            "Apertus, else unset it"
        )
    reached = original * plan.factor
    if target >= reached + 1:
        yield (
            f"rope.max_position_embeddings is {target}; rope.factor {plan.factor:g} leads from "
            f"{original} tokens to {reached:g}, so the slowest dimensions turn up to "
            f"{target / reached:.3g} times as far as in pre-training; as in Llama 3.1, else set "
            f"rope.factor={target / original:g}"
        )
    elif math.isclose(target, reached, abs_tol=0.5) and not math.isclose(
        target, reached, abs_tol=1e-6
    ):
        yield (
            f"rope.factor is {plan.factor:g}; from {original} tokens it leads to {reached:g}, "
            f"rounded to {target}"
        )


def _changed_words(plan: RopePlan) -> Iterator[str]:
    """Words of the base's own scaling that the plan has otherwise, or not at all."""
    base, new = plan.base["rope_parameters"], plan.rope_parameters
    if base["rope_type"] == "default":
        return
    changes = [
        f"{word} {_in_words(base, word)} becomes {_in_words(new, word)}"
        for word in sorted((set(base) | set(new)) - STRUCTURE)
        if _value(base, word) != _value(new, word)
    ]
    if changes:
        yield (
            f"the base's own scaling ({base['rope_type']}) is replaced, and with it its "
            f"{', '.join(changes)}; attention_factor is {plan.base['attention_factor']:.4g} in the "
            f"base and {plan.attention_factor:.4g} in the plan; to keep one set rope.WORD, where "
            f"rope={plan.method} has it"
        )


def _value(parameters: dict[str, Any], word: str) -> Any:
    """As transformers reads it: null means the default, and so does a 0 of YaRN's numbers."""
    value = parameters.get(word)
    return WORD_DEFAULTS.get(word) if value is None or value is not False and not value else value


def _in_words(parameters: dict[str, Any], word: str) -> str:
    value = _value(parameters, word)
    return "unset" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _trained_length(plan: RopePlan, seq_len: int, steps: int | None) -> Iterator[str]:
    """Nothing without training: then no length is trained."""
    target = plan.max_position_embeddings
    if steps and seq_len < target and plan.method != "none":
        yield (
            f"data.seq_len is {seq_len}; the plan reaches {target} tokens, so positions beyond "
            f"{seq_len} are never trained; raise data.seq_len, or set train.steps=0 to rescale only"
        )
    if steps and seq_len > target:
        yield (
            f"data.seq_len is {seq_len}; the plan reaches {target} tokens, so documents longer "
            "than that are trained beyond the planned window; lower data.seq_len, or raise "
            "rope.factor or rope.max_position_embeddings"
        )


def _pose_length(plan: RopePlan, pose: int, steps: int | None) -> Iterator[str]:
    """Under PoSE positions reach `pose`, however short the sequences are."""
    target = plan.max_position_embeddings
    if not steps or pose == target:
        return
    consequence = "positions beyond that are trained"
    if pose < target:
        consequence = f"positions beyond {pose} are never trained"
    yield (
        f"data.pose.target_length is {pose}; the plan reaches {target} tokens, so {consequence}; "
        f"set data.pose.target_length={target}"
    )


def _architecture(plan: RopePlan, architecture: str, sliding: bool) -> Iterator[str]:
    if sliding and plan.layer_type is None:
        yield (
            f"the model ({architecture}) has sliding-window layers that share one rotary table "
            "with the others; they are rescaled too, which they do not need; a model with a table "
            "for each layer type (Gemma 3, OLMo 3) avoids it"
        )
    if sliding and plan.layer_type is not None:
        yield (
            f"the model ({architecture}) has sliding-window layers: only the {plan.layer_type} "
            "layers are rescaled, and only they carry what lies further back than the window"
        )
    if plan.qk_head_dim and not math.isclose(plan.attention_factor, 1.0):
        yield (
            f"attention_factor is {plan.attention_factor:.4f}; in {architecture} it reaches the "
            "decoupled rotary dimensions only, not the whole score; with rope=yarn leave it unset: "
            "the temperature then goes into the softmax scale"
        )


def _short_and_long_table(plan: RopePlan) -> Iterator[str]:
    if plan.short_inv_freq is not None:
        yield (
            f"rope={plan.method} switches its table by the longest position of a forward pass: "
            "every document packed beside a long one gets the long table, and keys in a server's "
            "cache keep the table they were made with; a static method has no such seam"
        )
    elif plan.rope_parameters.get("rope_type") == "longrope":
        yield (
            "long_factor and short_factor are the same: short texts get the long table too, as in "
            "training; what that costs inside the original window is in the report"
        )


def _frequencies(plan: RopePlan) -> Iterator[str]:
    old, new = np.array(plan.base["inv_freq"]), np.array(plan.inv_freq)
    not_falling = np.flatnonzero(np.diff(new) >= 0)
    raised = np.flatnonzero(new > old * (1 + 1e-9))
    if len(not_falling):
        i = int(not_falling[0])
        yield (
            f"inv_freq[{i + 1}] is {new[i + 1]:.4g}, not below inv_freq[{i}] {new[i]:.4g}; "
            "frequencies of a rotary table fall; look at the table"
        )
    elif len(raised):
        i = int(raised[0])
        yield (
            f"inv_freq[{i}] rises from {old[i]:.4g} to {new[i]:.4g}; extending lowers frequencies; "
            "look at the table"
        )
