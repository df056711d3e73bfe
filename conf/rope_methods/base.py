"""The base class of all RoPE methods, the table that a method scales, and shared formulas.

d  rotary dimensions of a head (inv_freq has d/2 entries)     b  rope_theta
s  factor, new window over original                           o  original_max_position_embeddings
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ropewalk.conf.rules import setting


@dataclass(frozen=True)
class Table:
    """The rotary table that a method makes of a base's table."""

    inv_freq: np.ndarray
    """(d/2,) float64, radians a token; at the new window, where the table switches by length."""
    attention_factor: float = 1.0
    """Multiplies cos and sin, so attention scores get its square."""
    short_inv_freq: np.ndarray | None = None
    """(d/2,) up to the original window, where the method switches by length."""


@dataclass(frozen=True)
class Rotary:
    """The rotary embedding that a method scales, as pre-training had it."""

    dim: int
    theta: float
    original: int

    def table(self) -> np.ndarray:
        """`theta^(-2i/d)`, i = 0 ... d/2-1. Shape (d/2,).

        RoFormer (arXiv 2104.09864), section 3.2.2.
        """
        return self.theta ** (-np.arange(0, self.dim, 2, dtype=np.float64) / self.dim)


@dataclass(kw_only=True)
class RopeConfig:
    """No scaling: the base's own table (also the base class of the methods)."""

    method: str = "none"
    """The scaling method. Choose it by `rope=METHOD`, which brings its settings; a run starts with
    yarn."""
    factor: float | None = setting(None, at_least=1, way_out="e.g. rope.factor=8")
    """New window over the original one; unset: follows from `target_length`."""
    target_length: int | None = setting(None, at_least=1, way_out="unset it")
    """The new window, tokens; unset: follows from `factor`."""
    original_max_position_embeddings: int | None = setting(None, at_least=1, way_out="unset it")
    """The window of pre-training, tokens; unset: read from the model's config."""
    max_position_embeddings: int | None = setting(
        None, at_least=1, way_out="unset it for factor x original window", fingerprint="if_set"
    )
    """The new window, tokens, where it is not `factor` x the original one, as in Llama 3.1 (131,072
    with factor 8 from 8,192). The table is that of the factor; the exported config has this
    window."""

    @property
    def scale(self) -> float:
        """s, once `factor` is resolved."""
        return 1.0 if self.factor is None else self.factor

    def window(self, original: int) -> int:
        """The new window, tokens, once `factor` is resolved."""
        return self.max_position_embeddings or round(original * self.scale)

    def theta(self, rotary: Rotary) -> float:
        """The base's theta; methods that change it override this."""
        return rotary.theta

    def table(self, rotary: Rotary) -> Table:
        """The rotary table that this method makes of `rotary`.

        Raises: ConfigError when the settings do not fit the model.
        """
        return Table(Rotary(rotary.dim, self.theta(rotary), rotary.original).table())

    def hf_parameters(self, rotary: Rotary) -> dict[str, Any]:
        """The same table as `rope_parameters` of transformers."""
        return {"rope_type": "default", "rope_theta": self.theta(rotary)}

    def problems(self, prefix: str) -> Iterator[str]:
        """One line for each condition over several settings that does not hold."""
        if self.method != type(self).method:
            yield (
                f"{prefix}method is {self.method}; it comes with rope=METHOD, a file in conf/rope; "
                "write e.g. rope=pi"
            )
        yield from self._unscaled_problems(prefix)
        yield from self._window_problems(prefix)
        original = self.original_max_position_embeddings
        if original is not None and self.factor is not None and self.target_length is not None:
            yield from disagreement(self.factor, self.target_length, original)

    def _unscaled_problems(self, prefix: str) -> Iterator[str]:
        """A method that would do nothing, or a factor that no method reads."""
        factor, target_length = self.factor, self.target_length
        if self.method == "none":
            yield from self._ignored_problems(prefix)
        elif factor == 1:
            yield (
                f"{prefix}factor is 1; rope={self.method} with factor 1 scales nothing; set e.g. "
                "rope.factor=8, or rope=none"
            )
        elif factor is None and target_length is None:
            yield (
                f"{prefix}factor is not set; rope={self.method} needs a factor or a target_length; "
                "e.g. rope.factor=8"
            )
        elif factor is None and (target_length or 0) <= (
            self.original_max_position_embeddings or 0
        ):
            yield (
                f"{prefix}target_length is {target_length}; it must be longer than "
                f"{prefix}original_max_position_embeddings "
                f"{self.original_max_position_embeddings}, else nothing is scaled; raise it, or "
                "rope=none"
            )

    def _window_problems(self, prefix: str) -> Iterator[str]:
        """A window apart from the factor, where another setting names it or nothing reads it."""
        if self.max_position_embeddings is None:
            return
        start = f"{prefix}max_position_embeddings is {self.max_position_embeddings}"
        if self.method == "none":
            yield f"{start}; rope=none scales nothing; choose rope=yarn, or unset it"
        elif self.target_length is not None:
            yield (
                f"{start}; {prefix}target_length {self.target_length} names the new window too; "
                f"unset {prefix}target_length and set {prefix}factor"
            )

    def _ignored_problems(self, prefix: str) -> Iterator[str]:
        """Settings that rope=none does not read."""
        if self.factor not in (None, 1):
            yield (
                f"{prefix}factor is {self.factor}; rope=none scales nothing; choose rope=yarn, "
                "ntk or pi, or factor 1"
            )
        if self.target_length is not None:
            yield (
                f"{prefix}target_length is {self.target_length}; rope=none scales nothing; "
                "choose rope=yarn, or unset it"
            )


@dataclass(kw_only=True)
class ThetaRopeConfig(RopeConfig):
    """A method that can start from another theta than the base's."""

    rope_theta: float | None = setting(
        None, above=1, way_out="unset it for the base's", fingerprint="if_set"
    )
    """The theta that the method scales, in place of the base's (Gemma 3: 1e6 and linear 8, from
    1e4); unset: the base's."""

    def theta(self, rotary: Rotary) -> float:
        return rotary.theta if self.rope_theta is None else self.rope_theta

    def scaled(self, rotary: Rotary) -> Rotary:
        """The rotary embedding that the method scales."""
        return replace(rotary, theta=self.theta(rotary))


def disagreement(factor: float, target_length: int, original: int) -> Iterator[str]:
    """The line for a factor and a target length that lead to different windows."""
    if math.isfinite(factor) and round(original * factor) != target_length:
        yield (
            f"rope.factor is {factor:g} and rope.target_length is {target_length}; from the "
            f"original window {original} the factor leads to {round(original * factor)}; give one "
            "of them"
        )


def ntk_theta(theta: float, scale: float, dim: int) -> float:
    """`b scale^(d/(d-2))`: the longest wavelength grows by `scale`, the shortest stays.

    YaRN (arXiv 2309.00071), appendix A.1.
    """
    return theta * scale ** (dim / (dim - 2))


def longrope_parameters(
    long: list[float], short: list[float], factor: float, rotary: Rotary
) -> dict[str, Any]:
    """`rope_parameters` of type `longrope` with these divisors, d/2 each."""
    return {
        "rope_type": "longrope",
        "rope_theta": rotary.theta,
        "factor": factor,
        "original_max_position_embeddings": rotary.original,
        "short_factor": list(short),
        "long_factor": list(long),
    }


def as_longrope(table: Table, factor: float, rotary: Rotary) -> dict[str, Any]:
    """Any table that does not switch by length, as LongRoPE with one list of divisors.

    Engines that have no other form for the table read this one.
    """
    divisors = (rotary.table() / table.inv_freq).tolist()
    return longrope_parameters(divisors, divisors, factor, rotary) | {
        "attention_factor": table.attention_factor
    }
