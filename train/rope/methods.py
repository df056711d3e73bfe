"""Rotary frequencies of each scaling method. Pure, float64; no torch, no transformers.

d  rotary dimensions of a head (inv_freq has d/2 entries)     b  rope_theta
s  factor, new window over original                           o  original_max_position_embeddings, tokens
"""

import json
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.scaling import (
    ABFConfig,
    DynamicConfig,
    Llama3Config,
    LongRopeConfig,
    NTKByPartsConfig,
    NTKConfig,
    PIConfig,
    RopeConfig,
    TableConfig,
    YarnConfig,
)


@dataclass(frozen=True)
class Table:
    """What a method makes of a base's table."""

    inv_freq: (
        np.ndarray
    )  # (d/2,) float64, radians a token; of a table that switches by length: at the new window
    attention_factor: float = 1.0  # multiplies cos and sin, so attention scores get its square
    short_inv_freq: np.ndarray | None = (
        None  # (d/2,) up to the original window, where the method switches by length
    )


@dataclass(frozen=True)
class Rotary:
    """What a method is applied to: one rotary table as pre-training had it."""

    dim: int
    theta: float
    original: int

    def table(self) -> np.ndarray:
        """`theta^(-2i/d)`, i = 0 ... d/2-1 (RoFormer, arXiv 2104.09864, section 3.2.2). Shape (d/2,)."""
        return self.theta ** (-np.arange(0, self.dim, 2, dtype=np.float64) / self.dim)


def ntk_theta(theta: float, scale: float, dim: int) -> float:
    """`b scale^(d/(d-2))`: the longest wavelength grows by `scale`, the shortest stays (arXiv 2309.00071, appendix A.1)."""
    return theta * scale ** (dim / (dim - 2))


def correction_dim(rotations: float, rotary: Rotary) -> float:
    """The (fractional) dimension that turns `rotations` times in the original window (arXiv 2309.00071, section 3.2)."""
    return (
        rotary.dim
        * math.log(rotary.original / (rotations * 2 * math.pi))
        / (2 * math.log(rotary.theta))
    )


class NoScaling:
    """The base's own table."""

    @staticmethod
    def table(config: RopeConfig, rotary: Rotary) -> Table:
        return Table(rotary.table())

    @staticmethod
    def parameters(config: RopeConfig, rotary: Rotary) -> dict[str, Any]:
        return {"rope_type": "default", "rope_theta": rotary.theta}


class PositionInterpolation:
    """arXiv 2306.15595, eq. 4: positions, hence all frequencies, divided by s."""

    @staticmethod
    def table(config: PIConfig, rotary: Rotary) -> Table:
        return Table(rotary.table() / scale(config))

    @staticmethod
    def parameters(config: PIConfig, rotary: Rotary) -> dict[str, Any]:
        return {"rope_type": "linear", "rope_theta": rotary.theta, "factor": scale(config)}


class RaisedTheta(ABC):
    """Methods that change theta alone."""

    @staticmethod
    @abstractmethod
    def theta(config: Any, rotary: Rotary) -> float:
        """The new theta."""

    @classmethod
    def table(cls, config: RopeConfig, rotary: Rotary) -> Table:
        return Table(Rotary(rotary.dim, cls.theta(config, rotary), rotary.original).table())

    @classmethod
    def parameters(cls, config: RopeConfig, rotary: Rotary) -> dict[str, Any]:
        return {"rope_type": "default", "rope_theta": cls.theta(config, rotary)}


class NTKAware(RaisedTheta):
    """Static NTK-aware scaling (arXiv 2309.00071, section 3.1)."""

    @staticmethod
    def theta(config: NTKConfig, rotary: Rotary) -> float:
        return ntk_theta(rotary.theta, scale(config), rotary.dim)


class DynamicNTK:
    """Dynamic NTK (arXiv 2309.00071, section 3.3; the form of transformers): theta raised by the text's own length."""

    @staticmethod
    def alpha(config: DynamicConfig) -> float:
        return scale(config) if config.alpha is None else config.alpha

    @classmethod
    def at(cls, config: DynamicConfig, rotary: Rotary, length: int) -> np.ndarray:
        """The table for a text of `length` tokens. Shape (d/2,)."""
        alpha, ratio = cls.alpha(config), max(length, rotary.original) / rotary.original
        theta = ntk_theta(rotary.theta, alpha * ratio - (alpha - 1), rotary.dim)
        return Rotary(rotary.dim, theta, rotary.original).table()

    @classmethod
    def table(cls, config: DynamicConfig, rotary: Rotary) -> Table:
        length = round(rotary.original * scale(config))
        return Table(cls.at(config, rotary, length), short_inv_freq=rotary.table())

    @classmethod
    def parameters(cls, config: DynamicConfig, rotary: Rotary) -> dict[str, Any]:
        return {"rope_type": "dynamic", "rope_theta": rotary.theta, "factor": cls.alpha(config)}


class NTKByParts:
    """arXiv 2309.00071, section 3.2: fast dimensions kept, slow ones divided by s, a ramp between."""

    @staticmethod
    def ramp(config: NTKByPartsConfig, rotary: Rotary) -> np.ndarray:
        """Share interpolated of each dimension, 0 kept ... 1 divided by s. Shape (d/2,).

        The upper border is clamped to d-1, not d/2-1, as in the paper's code and transformers: it matters where the
        original window is long against theta.
        """
        low, high = (
            correction_dim(turns, rotary) for turns in (config.beta_fast, config.beta_slow)
        )
        if config.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, rotary.dim - 1)
        if low == high:
            high += 0.001
        return np.clip((np.arange(rotary.dim // 2, dtype=np.float64) - low) / (high - low), 0, 1)

    @staticmethod
    def temperature(config: Any) -> float:
        return 1.0

    @classmethod
    def table(cls, config: NTKByPartsConfig, rotary: Rotary) -> Table:
        inv_freq, ramp = rotary.table(), cls.ramp(config, rotary)
        return Table(
            inv_freq / scale(config) * ramp + inv_freq * (1 - ramp), cls.temperature(config)
        )

    @classmethod
    def parameters(cls, config: NTKByPartsConfig, rotary: Rotary) -> dict[str, Any]:
        """YaRN without temperature: the only form that transformers has for it."""
        return {
            **yarn_head(config, rotary),
            **differing(config, YARN_EXTRAS),
            "attention_factor": 1.0,
        }


class Yarn(NTKByParts):
    """YaRN (arXiv 2309.00071): NTK-by-parts (section 3.2) and attention temperature 0.1 ln s + 1 (section 3.4)."""

    @staticmethod
    def temperature(config: YarnConfig) -> float:
        if config.attention_factor is not None:
            return config.attention_factor
        if config.mscale is not None and config.mscale_all_dim is not None:
            return get_mscale(scale(config), config.mscale) / get_mscale(
                scale(config), config.mscale_all_dim
            )
        return get_mscale(scale(config), 1.0)

    @classmethod
    def parameters(cls, config: NTKByPartsConfig, rotary: Rotary) -> dict[str, Any]:
        """Only what differs from the default form is written: the default form is the one that all engines read alike."""
        return {
            **yarn_head(config, rotary),
            **differing(config, (*YARN_EXTRAS, "attention_factor", "mscale", "mscale_all_dim")),
        }


YARN_EXTRAS = ("beta_fast", "beta_slow", "truncate")


def get_mscale(factor: float, mscale: float) -> float:
    """`0.1 mscale ln s + 1`, 1 without scaling."""
    return 0.1 * mscale * math.log(factor) + 1 if factor > 1 else 1.0


def yarn_head(config: RopeConfig, rotary: Rotary) -> dict[str, Any]:
    head: dict[str, Any] = {
        "rope_type": "yarn",
        "rope_theta": rotary.theta,
        "factor": scale(config),
    }
    return {**head, "original_max_position_embeddings": rotary.original}


def differing(config: RopeConfig, keys: tuple[str, ...]) -> dict[str, Any]:
    plain = type(config)()
    return {
        key: getattr(config, key) for key in keys if getattr(config, key) != getattr(plain, key)
    }


class Llama3:
    """The ramp of Llama 3.1 (arXiv 2407.21783, section 3.4.2, and its code): linear in the rotation count."""

    @staticmethod
    def table(config: Llama3Config, rotary: Rotary) -> Table:
        inv_freq = rotary.table()
        rotations = rotary.original * inv_freq / (2 * math.pi)
        kept = (rotations - config.low_freq_factor) / (
            config.high_freq_factor - config.low_freq_factor
        )
        kept = np.clip(kept, 0, 1)
        return Table((1 - kept) * inv_freq / scale(config) + kept * inv_freq)

    @staticmethod
    def parameters(config: Llama3Config, rotary: Rotary) -> dict[str, Any]:
        return {
            "rope_type": "llama3",
            "rope_theta": rotary.theta,
            "factor": scale(config),
            "low_freq_factor": config.low_freq_factor,
            "high_freq_factor": config.high_freq_factor,
            "original_max_position_embeddings": rotary.original,
        }


class LongRope:
    """LongRoPE (arXiv 2402.13753, eq. 2): a divisor for each dimension, sqrt(1 + ln s / ln o) for temperature."""

    @staticmethod
    def temperature(config: LongRopeConfig, rotary: Rotary) -> float:
        if config.attention_factor is not None:
            return config.attention_factor
        factor = scale(config)
        return math.sqrt(1 + math.log(factor) / math.log(rotary.original)) if factor > 1 else 1.0

    @classmethod
    def table(cls, config: LongRopeConfig, rotary: Rotary) -> Table:
        """Raises: ConfigError for a number of factors that does not fit the head."""
        long, short = cls._factors(config, rotary)
        short_inv_freq = None if short == long else rotary.table() / np.array(short)
        return Table(
            rotary.table() / np.array(long), cls.temperature(config, rotary), short_inv_freq
        )

    @classmethod
    def parameters(cls, config: LongRopeConfig, rotary: Rotary) -> dict[str, Any]:
        long, short = cls._factors(config, rotary)
        given = (
            {} if config.attention_factor is None else {"attention_factor": config.attention_factor}
        )
        return longrope_parameters(long, short, scale(config), rotary) | given

    @staticmethod
    def _factors(config: LongRopeConfig, rotary: Rotary) -> tuple[list[float], list[float]]:
        long = config.long_factor or []
        short = long if config.short_factor is None else config.short_factor
        for name, factors in (("long_factor", long), ("short_factor", short)):
            if len(factors) != rotary.dim // 2:
                raise ConfigError(
                    f"rope.{name} has {len(factors)} numbers; the model has {rotary.dim} rotary dimensions, so it must be "
                    f"{rotary.dim // 2}; correct the list"
                )
        return long, short


def longrope_parameters(
    long: list[float], short: list[float], factor: float, rotary: Rotary
) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "rope_theta": rotary.theta,
        "factor": factor,
        "original_max_position_embeddings": rotary.original,
        "short_factor": list(short),
        "long_factor": list(long),
    }


class ABF(RaisedTheta):
    """Adjusted base frequency (arXiv 2309.16039, section 2.1)."""

    @staticmethod
    def theta(config: ABFConfig, rotary: Rotary) -> float:
        """Given, or `b^(ln(T/2pi) / ln(o/2pi))`: dimensions that saw a full turn still do (arXiv 2310.05209, theorem 2)."""
        if config.rope_theta is not None:
            return config.rope_theta
        target, original = (
            x / (2 * math.pi) for x in (rotary.original * scale(config), rotary.original)
        )
        return float(rotary.theta ** (math.log(target) / math.log(original)))


class FreeTable:
    """Any table, from a file: research, and what `calibrate` found."""

    @staticmethod
    def read(config: TableConfig) -> dict[str, Any]:
        """What the file says, without its nulls. Raises: ConfigError when it is missing, is no table, or has a value that is none."""
        try:
            found = json.loads(Path(str(config.path)).expanduser().read_text())
            if not isinstance(found["inv_freq"], list):
                raise TypeError
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ConfigError(
                f"rope.path is {config.path}; it must be JSON with a list `inv_freq` ({type(error).__name__}); give such a file"
            ) from None
        found = {key: value for key, value in found.items() if value is not None}
        for key, (right, rule) in FILE_RULES.items():
            if key in found and not right(found[key]):
                said = "" if key == "inv_freq" else f", not {str(found[key])[:40]}"
                raise ConfigError(f"rope.path is {config.path}; {rule}{said}; correct the file")
        return {**found, "inv_freq": [float(x) for x in found["inv_freq"]]}

    @classmethod
    def table(cls, config: TableConfig, rotary: Rotary) -> Table:
        found = cls.read(config)
        if len(found["inv_freq"]) != rotary.dim // 2:
            raise ConfigError(
                f"rope.path is {config.path}; it has {len(found['inv_freq'])} frequencies, the model {rotary.dim // 2}; "
                "it must be a table for this model; give another file"
            )
        if found.get("factor") not in (None, scale(config)):
            raise ConfigError(
                f"rope.factor is {scale(config):g}; the table of rope.path was made for {found['factor']:g}; they must agree; unset rope.factor"
            )
        if found.get("resting_inv_freq"):
            raise ConfigError(
                f"rope.path is {config.path}; its table switches by length, a free table does not; use its method"
            )
        return Table(np.array(found["inv_freq"]), float(found.get("attention_factor", 1.0)))

    @classmethod
    def parameters(cls, config: TableConfig, rotary: Rotary) -> dict[str, Any]:
        """The file's own form where it has one, else LongRoPE's with the same divisors for every length."""
        found = cls.read(config)
        return found.get("rope_parameters") or as_longrope(
            cls.table(config, rotary), scale(config), rotary
        )


def is_number(value: Any, least: float = sys.float_info.min) -> bool:
    """Whether a value of a file is a finite number of at least `least`; true and false are none."""
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and least <= value <= sys.float_info.max
    )


def _is_count(value: Any) -> bool:
    return is_number(value, 1) and isinstance(value, int)


FILE_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "inv_freq": (
        lambda x: bool(x) and all(map(is_number, x)),
        "every inv_freq must be above 0 and finite",
    ),
    "attention_factor": (is_number, "its attention_factor must be a finite number above 0"),
    "factor": (lambda x: is_number(x, 1), "its factor must be a finite number of at least 1"),
    "rope_parameters": (
        lambda x: isinstance(x, dict),
        "its rope_parameters must be a table of settings",
    ),
    "rope_theta": (is_number, "its rope_theta must be a finite number above 0"),
    "original_max_position_embeddings": (
        _is_count,
        "its original_max_position_embeddings must be a number of tokens",
    ),
    "max_position_embeddings": (
        _is_count,
        "its max_position_embeddings must be a number of tokens",
    ),
    "calibrated_on": (
        lambda x: isinstance(x, list),
        "its calibrated_on must be a list of documents",
    ),
}
"""What a table's file may hold, where it holds it."""


def as_longrope(table: Table, factor: float, rotary: Rotary) -> dict[str, Any]:
    """Any table that does not switch, in the form of LongRoPE: read by engines that have no other word for it."""
    divisors = (rotary.table() / table.inv_freq).tolist()
    return longrope_parameters(divisors, divisors, factor, rotary) | {
        "attention_factor": table.attention_factor
    }


def scale(config: RopeConfig) -> float:
    """s, once `factor` is resolved."""
    return 1.0 if config.factor is None else config.factor


METHODS: dict[str, Any] = {
    "none": NoScaling,
    "pi": PositionInterpolation,
    "ntk": NTKAware,
    "dynamic": DynamicNTK,
    "ntk_by_parts": NTKByParts,
    "yarn": Yarn,
    "llama3": Llama3,
    "longrope": LongRope,
    "abf": ABF,
    "table": FreeTable,
}
