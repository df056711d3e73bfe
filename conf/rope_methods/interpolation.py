"""Methods that change all frequencies by one number: PI divides them, NTK and ABF raise theta."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.conf.rope_methods.base import (
    RopeConfig,
    Rotary,
    Table,
    ThetaRopeConfig,
    ntk_theta,
)
from ropewalk.conf.rules import setting


@dataclass(kw_only=True)
class PIConfig(ThetaRopeConfig):
    """Position interpolation (arXiv 2306.15595, eq. 4): every frequency divided by the factor."""

    method: str = "pi"

    def table(self, rotary: Rotary) -> Table:
        return Table(self.scaled(rotary).table() / self.scale)

    def hf_parameters(self, rotary: Rotary) -> dict[str, Any]:
        return {"rope_type": "linear", "rope_theta": self.theta(rotary), "factor": self.scale}


@dataclass(kw_only=True)
class NTKConfig(RopeConfig):
    """NTK-aware scaling, static (arXiv 2309.00071, section 3.1).

    Theta is raised so that the longest wavelength grows by the factor and the shortest stays.
    """

    method: str = "ntk"

    def theta(self, rotary: Rotary) -> float:
        return ntk_theta(rotary.theta, self.scale, rotary.dim)


@dataclass(kw_only=True)
class DynamicConfig(RopeConfig):
    """NTK-aware scaling, dynamic (arXiv 2309.00071, section 3.3; the form of transformers).

    Theta is raised by the length of the text; up to the original window the base's table stays.
    """

    method: str = "dynamic"
    alpha: float | None = setting(None, at_least=1, way_out="unset it for the factor")
    """Theta grows with `alpha L/original - (alpha - 1)` at L tokens; unset: the factor, as servers
    read it; 1: as the paper."""

    def problems(self, prefix: str) -> Iterator[str]:
        yield from super().problems(prefix)
        if self.max_position_embeddings is not None:
            yield (
                f"{prefix}max_position_embeddings is {self.max_position_embeddings}; dynamic NTK "
                f"computes its table from the length, and the factor names the window; unset it, "
                f"and set {prefix}alpha for another growth"
            )

    def table(self, rotary: Rotary) -> Table:
        length = round(rotary.original * self.scale)
        return Table(self._inv_freq(rotary, length), short_inv_freq=rotary.table())

    def hf_parameters(self, rotary: Rotary) -> dict[str, Any]:
        return {"rope_type": "dynamic", "rope_theta": rotary.theta, "factor": self._alpha()}

    def _inv_freq(self, rotary: Rotary, length: int) -> np.ndarray:
        """The table for a text of `length` tokens. Shape (d/2,)."""
        alpha, ratio = self._alpha(), max(length, rotary.original) / rotary.original
        theta = ntk_theta(rotary.theta, alpha * ratio - (alpha - 1), rotary.dim)
        return Rotary(rotary.dim, theta, rotary.original).table()

    def _alpha(self) -> float:
        return self.scale if self.alpha is None else self.alpha


@dataclass(kw_only=True)
class ABFConfig(RopeConfig):
    """Adjusted base frequency (arXiv 2309.16039, section 2.1): a raised theta."""

    method: str = "abf"
    rope_theta: float | None = setting(None, above=1, way_out="unset it to have it solved")
    """Unset: theta^(ln(T/2pi) / ln(o/2pi)), the smallest with which the dimensions that saw a full
    turn still do (arXiv 2310.05209, theorem 2)."""

    def theta(self, rotary: Rotary) -> float:
        if self.rope_theta is not None:
            return self.rope_theta
        target, original = (
            x / (2 * math.pi) for x in (rotary.original * self.scale, rotary.original)
        )
        return float(rotary.theta ** (math.log(target) / math.log(original)))
