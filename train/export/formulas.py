"""What five engines compute from `rope_parameters`, by their own formulas. Pure, float64.

Written from the sources of the versions in engines.py. The tests compare with transformers and
mlx-lm, and with llama.cpp through logits. `get_rope` of vLLM's and SGLang's wheels, with stubs for
what needs a GPU, ran once, on 2026-11-25, for 42 settings (14 scalings, three models): inv_freq
agreed within 4e-7, factors within 1e-6. llama.cpp's converter was read, not run.

d  rotary dimensions (inv_freq has d/2 entries)     p  `rope_parameters` of one table
Every engine's function takes (p, d, max_position_embeddings of config.json, tokens of the text).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Parameters = dict[str, Any]
Table = tuple[np.ndarray, float]
"""inv_freq (d/2,) float64, in radians per token; the attention factor on cos and sin."""
Formula = Callable[[Parameters, int, int, int], Table]


def unscaled(theta: float, dim: int) -> np.ndarray:
    return theta ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)


def mscale(factor: float, weight: float = 1.0) -> float:
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def yarn_table(
    p: Parameters, dim: int, factor: float, fast: float, slow: float, truncate: bool
) -> np.ndarray:
    """The ramp as all five compute it, with the upper border clamped to d-1."""
    theta, original = p["rope_theta"], p["original_max_position_embeddings"]
    low, high = (
        dim * math.log(original / (2 * math.pi * n)) / (2 * math.log(theta)) for n in (fast, slow)
    )
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    ramp = np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)
    inv_freq = unscaled(theta, dim)
    return inv_freq / factor * ramp + inv_freq * (1 - ramp)


def llama3_table(p: Parameters, dim: int, original: int) -> np.ndarray:
    inv_freq = unscaled(p["rope_theta"], dim)
    turns = original * inv_freq / (2 * math.pi)
    low, high = p["low_freq_factor"], p["high_freq_factor"]
    share = np.clip((turns - low) / (high - low), 0, 1)
    return (1 - share) * inv_freq / p["factor"] + share * inv_freq


def dynamic_ntk_table(p: Parameters, dim: int, ratio: float) -> np.ndarray:
    """Dynamic NTK: theta grows with `ratio`, the length over the window."""
    growth = p["factor"] * ratio - (p["factor"] - 1)
    return unscaled(p["rope_theta"] * growth ** (dim / (dim - 2)), dim)


def divided_table(p: Parameters, dim: int, key: str) -> np.ndarray:
    inv_freq: np.ndarray = unscaled(p["rope_theta"], dim) / np.array(p[key], dtype=np.float64)
    return inv_freq


def longrope_factor(factor: float, original: int) -> float:
    return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0


def unscaled_or_linear(p: Parameters, dim: int) -> Table | None:
    """The two scalings that every engine computes alike; None for the others."""
    inv_freq = unscaled(p["rope_theta"], dim)
    if p["rope_type"] == "default":
        return inv_freq, 1.0
    if p["rope_type"] == "linear":
        return inv_freq / p["factor"], 1.0
    return None


def transformers(p: Parameters, dim: int, window: int, length: int) -> Table:
    """5.23, `modeling_rope_utils.py`. A null factor means window / original window; a null or 0
    beta means the default."""
    if (table := unscaled_or_linear(p, dim)) is not None:
        return table
    kind = p["rope_type"]
    if kind == "llama3":
        return llama3_table(p, dim, p["original_max_position_embeddings"]), 1.0
    if kind == "dynamic":
        return dynamic_ntk_table(p, dim, max(length, window) / window), 1.0
    original = p["original_max_position_embeddings"]
    factor = p.get("factor") or window / original
    attention_factor = p.get("attention_factor")
    if kind == "longrope":
        inv_freq = divided_table(p, dim, "long_factor" if length > original else "short_factor")
        if attention_factor is None:
            attention_factor = longrope_factor(factor, original)
        return inv_freq, attention_factor
    inv_freq = yarn_table(
        p, dim, factor, p.get("beta_fast") or 32, p.get("beta_slow") or 1, p.get("truncate", True)
    )
    return inv_freq, yarn_factor(p, factor) if attention_factor is None else attention_factor


def yarn_factor(p: Parameters, factor: float) -> float:
    if p.get("mscale") and p.get("mscale_all_dim"):
        return mscale(factor, p["mscale"]) / mscale(factor, p["mscale_all_dim"])
    return mscale(factor)


def vllm(p: Parameters, dim: int, window: int, length: int) -> Table:
    """0.33.0, `rotary_embedding/`, served at its full window: LongRoPE then uses the long divisors
    for every text, and dynamic NTK divides the window by itself, so theta does not grow."""
    if p["rope_type"] == "dynamic":
        return unscaled(p["rope_theta"], dim), 1.0
    if p["rope_type"] == "longrope":
        original = p["original_max_position_embeddings"]
        factor = p.get("long_mscale", longrope_factor(window / original, original))
        return divided_table(p, dim, "long_factor" if window > original else "short_factor"), factor
    return transformers(p, dim, window, length)


def sglang(p: Parameters, dim: int, window: int, length: int) -> Table:
    """0.5.23, `rotary_embedding/`. `attn_factor` multiplies, `attention_factor` is not read;
    dynamic NTK is computed once, for the window times the factor."""
    if p["rope_type"] == "yarn":
        m = mscale(p["factor"])
        if p.get("mscale") is not None and p.get("mscale_all_dim") is not None:
            m = mscale(p["factor"], p["mscale"]) / mscale(p["factor"], p["mscale_all_dim"])
        ramp = (p.get("beta_fast", 32), p.get("beta_slow", 1), p.get("truncate", True))
        return yarn_table(p, dim, p["factor"], *ramp), m * p.get("attn_factor", 1)
    if p["rope_type"] == "dynamic":
        return dynamic_ntk_table(p, dim, p["factor"]), 1.0
    if p["rope_type"] == "longrope":
        original = p["original_max_position_embeddings"]
        key = "long" if length > original else "short"
        factor = p.get(f"{key}_mscale", longrope_factor(window / original, original))
        return divided_table(p, dim, f"{key}_factor"), factor
    return transformers(p, dim, window, length)


def mlx_lm(p: Parameters, dim: int, window: int, length: int) -> Table:
    """0.32.2, `rope_utils.py`. `mscale` works alone; `truncate` and `attention_factor` are not
    read; LongRoPE uses the long divisors for every text."""
    if p["rope_type"] == "yarn":
        factor = p["factor"]
        table = yarn_table(p, dim, factor, p.get("beta_fast", 32), p.get("beta_slow", 1), True)
        all_dim = mscale(factor, p.get("mscale_all_dim", 0))
        return table, mscale(factor, p.get("mscale", 1)) / all_dim
    if p["rope_type"] == "longrope":
        original = p["original_max_position_embeddings"]
        return divided_table(p, dim, "long_factor"), longrope_factor(window / original, original)
    return transformers(p, dim, window, length)


@dataclass(frozen=True, kw_only=True)
class GgufRope:
    """The rotary keys of a GGUF file, as llama.cpp reads them for llama, qwen2 and qwen3."""

    freq_base: float
    scaling: str = "none"  # none, linear or yarn
    factor: float = 1.0
    original: int = 0
    attn_factor: float = 1.0  # multiplies the scaling's own attention factor
    rope_freqs: np.ndarray | None = field(default=None, compare=False)
    """(d/2,) divisors; architecture llama only."""


def scaling_keys(p: Parameters) -> GgufRope:
    """The keys of a scaling that GGUF names; theta alone for the others."""
    keys: dict[str, Any] = {"freq_base": p["rope_theta"]}
    if p["rope_type"] in ("linear", "yarn"):
        keys |= {"scaling": p["rope_type"], "factor": p["factor"]}
    if p["rope_type"] == "yarn":
        keys["original"] = p["original_max_position_embeddings"]
    return GgufRope(**keys)


def llama_cpp(keys: GgufRope, dim: int) -> Table:
    """ggml's `rope_yarn`. Its temperature, corrected by the context, is 0.1 ln s + 1."""
    divisors = 1.0 if keys.rope_freqs is None else keys.rope_freqs.astype(np.float64)
    if keys.scaling == "yarn":
        p = {"rope_theta": keys.freq_base, "original_max_position_embeddings": keys.original}
        table = yarn_table(p, dim, keys.factor, 32, 1, True) / divisors
        return table, mscale(keys.factor) * keys.attn_factor
    factor = keys.factor if keys.scaling == "linear" else 1.0
    return unscaled(keys.freq_base, dim) / factor / divisors, keys.attn_factor


def converter(p: Parameters, dim: int, window: int, length: int) -> Table:
    """llama.cpp's `convert_hf_to_gguf.py` on hf/, then llama.cpp. It looks for Llama 3's original
    window outside the parameters, and takes 8192 without one."""
    kind = p["rope_type"]
    if kind == "llama3":
        return llama3_table(p, dim, 8192), 1.0
    return llama_cpp(scaling_keys(p), dim)
