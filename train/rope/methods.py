"""Rotary frequencies of each scaling method. Pure, float64; no torch, no transformers.

d  rotary dimensions of a head (inv_freq has d/2 entries)     b  rope_theta
s  factor, new window over original                           o  original_max_position_embeddings, tokens
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ropewalk.conf.schema import NTKConfig, PIConfig, RopeConfig, YarnConfig


@dataclass(frozen=True)
class Table:
    """What a method makes of a base's table."""

    inv_freq: np.ndarray  # (d/2,) float64, radians a token
    attention_factor: float  # multiplies cos and sin, so attention scores get its square


def base_inv_freq(dim: int, theta: float) -> np.ndarray:
    """`theta^(-2i/d)`, i = 0 ... d/2-1 (RoFormer, arXiv 2104.09864, section 3.2.2). Shape (d/2,)."""
    return theta ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)


def none(config: RopeConfig, dim: int, theta: float, original: int) -> Table:
    """The base's own table."""
    return Table(base_inv_freq(dim, theta), 1.0)


def pi(config: RopeConfig, dim: int, theta: float, original: int) -> Table:
    """Position interpolation (arXiv 2306.15595, eq. 4): positions, hence all frequencies, divided by s."""
    return Table(base_inv_freq(dim, theta) / config.factor, 1.0)


def ntk_theta(factor: float, dim: int, theta: float) -> float:
    """`b s^(d/(d-2))`: the longest wavelength grows by s, the shortest stays (arXiv 2309.00071, appendix A.1)."""
    return theta * factor ** (dim / (dim - 2))


def ntk(config: RopeConfig, dim: int, theta: float, original: int) -> Table:
    """NTK-aware, static: a raised theta."""
    return Table(base_inv_freq(dim, ntk_theta(config.factor, dim, theta)), 1.0)


def correction_dim(rotations: float, dim: int, theta: float, original: int) -> float:
    """The (fractional) dimension that turns `rotations` times in the original window (arXiv 2309.00071, section 3.2)."""
    return dim * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(theta))


def yarn_ramp(config: YarnConfig, dim: int, theta: float, original: int) -> np.ndarray:
    """Share interpolated of each dimension, 0 kept ... 1 divided by s. Shape (d/2,).

    The upper border is clamped to d-1, not d/2-1, as in the paper's code and transformers: it matters where the original
    window is long against theta.
    """
    low = correction_dim(config.beta_fast, dim, theta, original)
    high = correction_dim(config.beta_slow, dim, theta, original)
    if config.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    return np.clip((np.arange(dim // 2, dtype=np.float64) - low) / (high - low), 0, 1)


def yarn(config: RopeConfig, dim: int, theta: float, original: int) -> Table:
    """YaRN (arXiv 2309.00071): NTK-by-parts (section 3.2) and attention temperature 0.1 ln s + 1 (section 3.3)."""
    assert isinstance(config, YarnConfig), config
    inv_freq, ramp = base_inv_freq(dim, theta), yarn_ramp(config, dim, theta, original)
    temperature = config.attention_factor
    if temperature is None:
        temperature = 0.1 * math.log(config.factor) + 1 if config.factor > 1 else 1.0
    return Table(inv_freq / config.factor * ramp + inv_freq * (1 - ramp), temperature)


def pi_parameters(config: RopeConfig, dim: int, theta: float, original: int) -> dict[str, object]:
    return {"rope_type": "linear", "rope_theta": theta, "factor": config.factor}


def ntk_parameters(config: RopeConfig, dim: int, theta: float, original: int) -> dict[str, object]:
    return {"rope_type": "default", "rope_theta": ntk_theta(config.factor, dim, theta)}


def yarn_parameters(config: RopeConfig, dim: int, theta: float, original: int) -> dict[str, object]:
    """Only what differs from the default form is written: the default form is the one that all engines read alike."""
    assert isinstance(config, YarnConfig), config
    plain = YarnConfig()
    extra = {
        key: getattr(config, key)
        for key in ("beta_fast", "beta_slow", "attention_factor", "truncate")
        if getattr(config, key) != getattr(plain, key)
    }
    head: dict[str, object] = {"rope_type": "yarn", "rope_theta": theta, "factor": config.factor}
    return {**head, "original_max_position_embeddings": original, **extra}


def none_parameters(config: RopeConfig, dim: int, theta: float, original: int) -> dict[str, object]:
    return {"rope_type": "default", "rope_theta": theta}


@dataclass(frozen=True)
class Method:
    """A method: its table, and the Hugging Face `rope_parameters` that mean the same."""

    table: Callable[[RopeConfig, int, float, int], Table]
    parameters: Callable[[RopeConfig, int, float, int], dict[str, object]]
    config: type[RopeConfig]


METHODS = {
    "none": Method(none, none_parameters, RopeConfig),
    "pi": Method(pi, pi_parameters, PIConfig),
    "ntk": Method(ntk, ntk_parameters, NTKConfig),
    "yarn": Method(yarn, yarn_parameters, YarnConfig),
}
