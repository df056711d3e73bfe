"""The rotary keys of a GGUF file as `rope_parameters`. Pure, float64.

What llama.cpp computes (formulas.py has its table): frequencies base^(-2i/d) / factor, or YaRN's
ramp, each divided by `rope_freqs.weight`; cos and sin times `attn_factor`, times YaRN's own factor.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.train.export.formulas import GgufRope, llama_cpp, mscale, unscaled

SCALING = "rope.scaling."
READ = (
    "rope.freq_base", "rope.dimension_count", "rope.scale_linear", f"{SCALING}type",
    f"{SCALING}factor", f"{SCALING}original_context_length", f"{SCALING}attn_factor",
    f"{SCALING}yarn_beta_fast", f"{SCALING}yarn_beta_slow", f"{SCALING}yarn_ext_factor",
    f"{SCALING}finetuned",
)  # fmt: skip
FREQS, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
TENSORS = (FREQS, LONG, SHORT)
RTOL = 2e-6  # of float32 divisors
Refuse = Callable[[str, object, str], Exception]
"""(key, value, rule) -> the error to raise."""


@dataclass(frozen=True)
class RopeKeys:
    """The keys without the architecture's name, and the divisors (d/2,) that the file holds."""

    keys: dict[str, Any]
    dim: int  # rotary dimensions of a head
    window: int  # context_length, tokens
    freqs: np.ndarray | None
    long: np.ndarray | None
    short: np.ndarray | None

    def number(self, key: str, default: float) -> float:
        value = self.keys.get(key)
        return default if value is None else shortest(value)

    @property
    def theta(self) -> float:
        return self.number("rope.freq_base", 10_000.0)

    @property
    def factor(self) -> float:
        """llama.cpp takes 0, and no factor, as 1."""
        old = self.number("rope.scale_linear", 0.0)
        return self.number(f"{SCALING}factor", old) or 1.0

    @property
    def original(self) -> int | None:
        value = self.keys.get(f"{SCALING}original_context_length")
        return int(value) if value else None

    @property
    def attn_factor(self) -> float:
        return self.number(f"{SCALING}attn_factor", 1.0)


def rope_parameters(rope: RopeKeys, refuse: Refuse) -> dict[str, Any]:
    """`rope_parameters` that mean the same; `refuse` makes the error for a key without a form."""
    kind = rope.keys.get(f"{SCALING}type", "linear")
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise refuse(f"{SCALING}type", kind, "it is read as none, linear, yarn or longrope")
    for name, divisors in zip(TENSORS, (rope.freqs, rope.long, rope.short), strict=True):
        if divisors is not None and divisors.shape != (rope.dim // 2,):
            rule = f"a head rotates {rope.dim} dimensions, so it holds {rope.dim // 2} divisors"
            raise refuse(name, f"of shape {list(divisors.shape)}", rule)
    if kind == "longrope" or rope.long is not None:
        return _longrope(rope, kind, refuse)
    if kind == "yarn" and rope.factor != 1:
        return _yarn(rope, refuse)
    factor = rope.factor if kind == "linear" else 1.0
    divisors = np.full(rope.dim // 2, factor) * (1.0 if rope.freqs is None else rope.freqs)
    if rope.attn_factor == 1 and rope.freqs is None:
        return _plain(rope, factor)
    if rope.attn_factor == 1 and (fit := llama3_parameters(divisors, rope)):
        return fit
    return _free(rope, divisors, rope.attn_factor, refuse)


def _plain(rope: RopeKeys, factor: float) -> dict[str, Any]:
    if factor == 1:
        return {"rope_type": "default", "rope_theta": rope.theta}
    return {"rope_type": "linear", "rope_theta": rope.theta, "factor": factor}


def _yarn(rope: RopeKeys, refuse: Refuse) -> dict[str, Any]:
    """llama.cpp takes the window as the original one where the file has none."""
    ext_factor = rope.number(f"{SCALING}yarn_ext_factor", 1.0)
    if ext_factor != 1:
        raise refuse(f"{SCALING}yarn_ext_factor", ext_factor, "only 1 has a form in transformers")
    original = rope.original or rope.window
    betas = {
        key: rope.number(f"{SCALING}yarn_{key}", default)
        for key, default in (("beta_fast", 32.0), ("beta_slow", 1.0))
    }
    changed = {k: v for k, v in betas.items() if v != {"beta_fast": 32.0, "beta_slow": 1.0}[k]}
    if rope.freqs is not None:
        if changed:
            rule = "together with rope_freqs.weight it has no form in transformers"
            raise refuse(f"{SCALING}yarn_{next(iter(changed))}", next(iter(changed.values())), rule)
        keys = GgufRope(freq_base=rope.theta, scaling="yarn", factor=rope.factor, original=original)
        divisors = unscaled(rope.theta, rope.dim) / llama_cpp(keys, rope.dim)[0] * rope.freqs
        return _free(rope, divisors, mscale(rope.factor) * rope.attn_factor, refuse)
    parameters = {"rope_type": "yarn", "rope_theta": rope.theta, "factor": rope.factor}
    parameters |= {"original_max_position_embeddings": original, **changed}
    if rope.attn_factor != 1:
        parameters["attention_factor"] = shortest(mscale(rope.factor) * rope.attn_factor)
    return parameters


def _longrope(rope: RopeKeys, kind: str, refuse: Refuse) -> dict[str, Any]:
    if rope.long is None or rope.short is None:
        missing = LONG if rope.long is None else SHORT
        raise refuse(f"{SCALING}type", kind, f"{missing} must be there, and is not")
    if rope.factor != 1 or rope.freqs is not None or rope.original is None:
        key = FREQS if rope.freqs is not None else f"{SCALING}factor"
        if rope.original is None:
            key = f"{SCALING}original_context_length"
        rule = "with divisors for long and short texts it has no form in transformers"
        raise refuse(key, rope.keys.get(key, "not set"), rule)
    return _switching(rope, rope.long, rope.short, rope.attn_factor, rope.original)


def _free(
    rope: RopeKeys, divisors: np.ndarray, attention_factor: float, refuse: Refuse
) -> dict[str, Any]:
    """Any divisors, as LongRoPE that does not switch by length."""
    if rope.original is None:
        raise refuse(
            f"{SCALING}original_context_length",
            "not set",
            "the divisors in rope_freqs.weight, or attn_factor, follow no scaling by a name, and "
            "the window of pre-training must be known",
        )
    return _switching(rope, divisors, divisors, attention_factor, rope.original)


def _switching(
    rope: RopeKeys, long: np.ndarray, short: np.ndarray, attention_factor: float, original: int
) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "rope_theta": rope.theta,
        "factor": rope.window / original,
        "original_max_position_embeddings": original,
        "long_factor": [shortest(x) for x in long],
        "short_factor": [shortest(x) for x in short],
        "attention_factor": shortest(attention_factor),
    }


def shortest(value: float) -> float:
    """The shortest decimal of a number that is stored in float32."""
    return float(str(np.float32(value)))


def llama3_parameters(divisors: np.ndarray, rope: RopeKeys) -> dict[str, Any] | None:
    """Llama 3's scaling, which a file holds as divisors alone; None where they are not of its form.

    1 / divisor runs linearly in turns per token from 1 / factor to 1. The two borders of that line
    give original window and high_freq_factor for the low_freq_factor 1, which all models have.
    """
    factor = float(divisors.max())
    if factor <= 1 or float(divisors.min()) < 1 - RTOL:
        return None
    turns = unscaled(rope.theta, rope.dim) / (2 * math.pi)
    share = (1 / divisors - 1 / factor) / (1 - 1 / factor)
    inside = (share > 1e-4) & (share < 1 - 1e-4)
    original, high = 8192, 4.0  # of all Llama 3 models, where no more than a point is inside
    if inside.sum() >= 2:
        slope, border = np.polyfit(turns[inside], share[inside], 1)
        if border >= 0:
            return None
        high = round(1 - 1 / border, 3)
        original = round(slope * (high - 1))
    fitted = np.clip((original * turns - 1) / (high - 1), 0, 1)
    expected = 1 / ((1 - fitted) / factor + fitted)
    if original > rope.window or not np.allclose(divisors, expected, rtol=RTOL, atol=0):
        return None
    return {
        "rope_type": "llama3",
        "rope_theta": rope.theta,
        "factor": shortest(factor),
        "low_freq_factor": 1.0,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }
