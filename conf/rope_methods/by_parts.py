"""Methods that keep fast dimensions, divide slow ones by the factor, and ramp between the two."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.conf.rope_methods.base import Rotary, Table, ThetaRopeConfig
from ropewalk.conf.rules import setting

RAMP_SETTINGS = ("beta_fast", "beta_slow", "truncate")
TEMPERATURE_SETTINGS = ("attention_factor", "mscale", "mscale_all_dim")
_WAY_OUT = "unset it for 0.1 ln(factor) + 1"


def correction_dim(rotations: float, rotary: Rotary) -> float:
    """The (fractional) dimension that turns `rotations` times in the original window.

    YaRN (arXiv 2309.00071), section 3.2.
    """
    return (
        rotary.dim
        * math.log(rotary.original / (rotations * 2 * math.pi))
        / (2 * math.log(rotary.theta))
    )


def get_mscale(factor: float, mscale: float) -> float:
    """`0.1 mscale ln s + 1`; 1 without scaling."""
    return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0


@dataclass(kw_only=True)
class NTKByPartsConfig(ThetaRopeConfig):
    """NTK-by-parts (arXiv 2309.00071, section 3.2).

    YaRN's ramp between two rotation counts, without its temperature.
    """

    method: str = "ntk_by_parts"
    beta_fast: float = setting(32.0, above=0, way_out="the paper's value is 32")
    """Dimensions with more rotations than this inside the original window are kept."""
    beta_slow: float = setting(1.0, above=0, way_out="the paper's value is 1")
    """Dimensions with fewer rotations than this are fully interpolated."""
    truncate: bool = True
    """Round the ramp's borders to whole dimensions, as the reference code does."""

    def problems(self, prefix: str) -> Iterator[str]:
        yield from super().problems(prefix)
        if 0 < self.beta_fast <= self.beta_slow < math.inf:
            yield (
                f"{prefix}beta_fast is {self.beta_fast}; it must be above {prefix}beta_slow "
                f"{self.beta_slow}; the paper's values are 32 and 1"
            )

    def table(self, rotary: Rotary) -> Table:
        rotary = self.scaled(rotary)
        inv_freq, ramp = rotary.table(), self._ramp(rotary)
        return Table(inv_freq / self.scale * ramp + inv_freq * (1 - ramp), self._attention_factor())

    def hf_parameters(self, rotary: Rotary) -> dict[str, Any]:
        """YaRN without temperature: the only form that transformers has for it."""
        return {**self._yarn_parameters(rotary, RAMP_SETTINGS), "attention_factor": 1.0}

    def _attention_factor(self) -> float:
        return 1.0

    def _ramp(self, rotary: Rotary) -> np.ndarray:
        """Interpolated share of each dimension, 0: kept, 1: divided by s. Shape (d/2,).

        The upper border is clamped to d-1, not d/2-1, as in the paper's code and transformers: it
        matters where the original window is long against theta.
        """
        low, high = (correction_dim(turns, rotary) for turns in (self.beta_fast, self.beta_slow))
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, rotary.dim - 1)
        if low == high:
            high += 0.001
        return np.clip((np.arange(rotary.dim // 2, dtype=np.float64) - low) / (high - low), 0, 1)

    def _yarn_parameters(self, rotary: Rotary, settings: tuple[str, ...]) -> dict[str, Any]:
        """Type `yarn` with the `settings` that differ from their defaults.

        All engines read the default form alike, so defaults are not written.
        """
        defaults = type(self)()
        return {
            "rope_type": "yarn",
            "rope_theta": self.theta(rotary),
            "factor": self.scale,
            "original_max_position_embeddings": rotary.original,
            **{
                name: getattr(self, name)
                for name in settings
                if getattr(self, name) != getattr(defaults, name)
            },
        }


@dataclass(kw_only=True)
class YarnConfig(NTKByPartsConfig):
    """YaRN (arXiv 2309.00071): NTK-by-parts (section 3.2) plus temperature (section 3.4)."""

    method: str = "yarn"
    attention_factor: float | None = setting(None, above=0, way_out=_WAY_OUT)
    """Multiplies cos and sin; unset: 0.1 ln(factor) + 1, or the quotient of the two below."""
    mscale: float | None = setting(None, above=0, way_out=_WAY_OUT)
    """With `mscale_all_dim`: attention_factor is
    (0.1 mscale ln s + 1) / (0.1 mscale_all_dim ln s + 1) (DeepSeek)."""
    mscale_all_dim: float | None = setting(None, above=0, way_out=_WAY_OUT)
    """The divisor's coefficient in the formula of `mscale`; set both or neither."""

    def problems(self, prefix: str) -> Iterator[str]:
        yield from super().problems(prefix)
        if (self.mscale is None) != (self.mscale_all_dim is None):
            name = "mscale" if self.mscale is not None else "mscale_all_dim"
            yield (
                f"{prefix}{name} is {getattr(self, name)}; engines differ when one of mscale and "
                "mscale_all_dim is alone; set both or neither"
            )
        elif self.mscale is not None and self.attention_factor is not None:
            yield (
                f"{prefix}attention_factor is {self.attention_factor}; {prefix}mscale sets it "
                "too, and engines differ in which wins; unset one"
            )

    def hf_parameters(self, rotary: Rotary) -> dict[str, Any]:
        return self._yarn_parameters(rotary, (*RAMP_SETTINGS, *TEMPERATURE_SETTINGS))

    def _attention_factor(self) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        if self.mscale is not None and self.mscale_all_dim is not None:
            return get_mscale(self.scale, self.mscale) / get_mscale(self.scale, self.mscale_all_dim)
        return get_mscale(self.scale, 1.0)


@dataclass(kw_only=True)
class Llama3Config(ThetaRopeConfig):
    """The ramp of Llama 3.1 (arXiv 2407.21783, section 3.4.2, and its code).

    Linear in the rotation count between two rotation counts.
    """

    method: str = "llama3"
    low_freq_factor: float = setting(1.0, above=0, way_out="Llama 3.1 has 1")
    """Dimensions with fewer rotations than this inside the original window are fully
    interpolated."""
    high_freq_factor: float = setting(4.0, above=0, way_out="Llama 3.1 has 4")
    """Dimensions with more rotations than this are kept."""

    def problems(self, prefix: str) -> Iterator[str]:
        yield from super().problems(prefix)
        if 0 < self.high_freq_factor <= self.low_freq_factor < math.inf:
            yield (
                f"{prefix}high_freq_factor is {self.high_freq_factor}; it must be above "
                f"{prefix}low_freq_factor {self.low_freq_factor}; Llama 3.1 has 4 and 1"
            )

    def table(self, rotary: Rotary) -> Table:
        inv_freq = self.scaled(rotary).table()
        rotations = rotary.original * inv_freq / (2 * math.pi)
        smooth = (rotations - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)
        smooth = np.clip(smooth, 0, 1)
        return Table((1 - smooth) * inv_freq / self.scale + smooth * inv_freq)

    def hf_parameters(self, rotary: Rotary) -> dict[str, Any]:
        return {
            "rope_type": "llama3",
            "rope_theta": self.theta(rotary),
            "factor": self.scale,
            "low_freq_factor": self.low_freq_factor,
            "high_freq_factor": self.high_freq_factor,
            "original_max_position_embeddings": rotary.original,
        }
