"""LongRoPE: a divisor for each frequency."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods.base import RopeConfig, Rotary, Table, longrope_parameters
from ropewalk.conf.rules import setting


@dataclass(kw_only=True)
class LongRopeConfig(RopeConfig):
    """LongRoPE (arXiv 2402.13753, eq. 2): a divisor for each frequency.

    `ropewalk calibrate` searches the divisors; the temperature is as in the paper's code.
    """

    method: str = "longrope"
    long_factor: list[float] | None = setting(
        None, above=0, way_out="raise it, since it divides a frequency"
    )
    """Divisor of each frequency, d/2 numbers of at least 1."""
    short_factor: list[float] | None = setting(
        None, above=0, way_out="raise it, since it divides a frequency"
    )
    """The same for texts up to the original window; unset: `long_factor` there too, so that no
    length switches tables."""
    attention_factor: float | None = setting(None, above=0, way_out="unset it for the paper's")
    """Multiplies cos and sin; unset: sqrt(1 + ln factor / ln original)."""

    def problems(self, prefix: str) -> Iterator[str]:
        yield from super().problems(prefix)
        if self.long_factor is None:
            yield (
                f"{prefix}long_factor is not set; it must be d/2 divisors; give them, or search "
                "them with ropewalk calibrate"
            )

    def table(self, rotary: Rotary) -> Table:
        long, short = self._divisors(rotary)
        short_inv_freq = None if short == long else rotary.table() / np.array(short)
        return Table(
            rotary.table() / np.array(long), self._attention_factor(rotary), short_inv_freq
        )

    def hf_parameters(self, rotary: Rotary) -> dict[str, Any]:
        parameters = longrope_parameters(*self._divisors(rotary), self.scale, rotary)
        if self.attention_factor is not None:
            parameters["attention_factor"] = self.attention_factor
        return parameters

    def _attention_factor(self, rotary: Rotary) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        factor = self.scale
        return math.sqrt(1 + math.log(factor) / math.log(rotary.original)) if factor > 1 else 1.0

    def _divisors(self, rotary: Rotary) -> tuple[list[float], list[float]]:
        """Long and short divisors. Raises: ConfigError when their number does not fit the head."""
        long = self.long_factor or []
        short = long if self.short_factor is None else self.short_factor
        for name, factors in (("long_factor", long), ("short_factor", short)):
            if len(factors) != rotary.dim // 2:
                raise ConfigError(
                    f"rope.{name} has {len(factors)} numbers; the model has {rotary.dim} rotary "
                    f"dimensions, so it must be {rotary.dim // 2}; correct the list"
                )
        return long, short
