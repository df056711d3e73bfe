"""The settings of each scaling method: type, unit, default and rule. What a method computes: `train.rope.methods`."""

import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(kw_only=True)
class RopeConfig:
    """No scaling: the base's own table (also the base class of the methods)."""

    method: str = "none"
    """The scaling method. Choose it by `rope=METHOD`, which brings its settings; a run starts with yarn."""
    factor: float | None = None
    """New window over the original one; unset: follows from `target_length`."""
    target_length: int | None = None
    """The new window, tokens; unset: follows from `factor`."""
    original_max_position_embeddings: int | None = None
    """The window of pre-training, tokens; unset: read from the model's config."""

    def problems(self) -> Iterator[str]:
        if ROPE_CLASSES.get(self.method) is not type(self):
            yield f"rope.method is {self.method}; it comes with rope=METHOD ({', '.join(ROPE_CLASSES)}); write e.g. rope=pi"
        if self.factor is not None and (not math.isfinite(self.factor) or self.factor < 1):
            yield f"rope.factor is {self.factor}; it must be a finite number of at least 1; e.g. rope.factor=8"
        for name in ("target_length", "original_max_position_embeddings"):
            if (tokens := getattr(self, name)) is not None and tokens < 1:
                yield f"rope.{name} is {tokens}; it must be at least 1 token; unset it"
        yield from self._nothing_scaled()
        yield from self._disagreement()

    def _nothing_scaled(self) -> Iterator[str]:
        """A method that would do nothing, or a factor that no method reads."""
        if self.method == "none":
            if self.factor not in (None, 1):
                yield f"rope.factor is {self.factor}; rope=none scales nothing; choose rope=yarn, ntk or pi, or factor 1"
            if self.target_length is not None:
                yield f"rope.target_length is {self.target_length}; rope=none scales nothing; choose rope=yarn, or unset it"
        elif self.factor == 1:
            yield f"rope.factor is 1; rope={self.method} with factor 1 scales nothing; set e.g. rope.factor=8, or rope=none"
        elif self.factor is None and self.target_length is None:
            yield f"rope.factor is not set; rope={self.method} needs a factor or a target_length; e.g. rope.factor=8"
        elif self.factor is None and (self.target_length or 0) <= (
            self.original_max_position_embeddings or 0
        ):
            yield (
                f"rope.target_length is {self.target_length}; it must be longer than rope.original_max_position_embeddings "
                f"{self.original_max_position_embeddings}, else nothing is scaled; raise it, or rope=none"
            )

    def _disagreement(self) -> Iterator[str]:
        original = self.original_max_position_embeddings
        if original is not None and self.factor is not None and self.target_length is not None:
            yield from disagreement(self.factor, self.target_length, original)


def disagreement(factor: float, target_length: int, original: int) -> Iterator[str]:
    """Of two ways to say one thing, the second must say the same."""
    if math.isfinite(factor) and round(original * factor) != target_length:
        yield (
            f"rope.factor is {factor:g} and rope.target_length is {target_length}; from the original window {original} the factor leads "
            f"to {round(original * factor)}; give one of them"
        )


@dataclass(kw_only=True)
class PIConfig(RopeConfig):
    """Position interpolation (arXiv 2306.15595): every frequency divided by the factor."""

    method: str = "pi"


@dataclass(kw_only=True)
class NTKConfig(RopeConfig):
    """NTK-aware scaling, static: theta raised so that the longest wavelength grows by the factor, the shortest stays."""

    method: str = "ntk"


@dataclass(kw_only=True)
class DynamicConfig(RopeConfig):
    """NTK-aware scaling, dynamic: theta raised by the length of the text at hand; the base's table up to its window."""

    method: str = "dynamic"
    alpha: float | None = None
    """Theta grows with `alpha L/original - (alpha - 1)` at L tokens; unset: the factor, as servers read it; 1: as the paper."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.alpha is not None and not 1 <= self.alpha < math.inf:
            yield f"rope.alpha is {self.alpha}; it must be a finite number of at least 1; unset it for the factor"


@dataclass(kw_only=True)
class NTKByPartsConfig(RopeConfig):
    """NTK-by-parts (arXiv 2309.00071, section 3.2): YaRN's ramp between two rotation counts, without its temperature."""

    method: str = "ntk_by_parts"
    beta_fast: float = 32.0
    """Dimensions with more rotations than this inside the original window are kept."""
    beta_slow: float = 1.0
    """Dimensions with fewer rotations than this are fully interpolated."""
    truncate: bool = True
    """Round the ramp's borders to whole dimensions, as the reference code does."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if not 0 < self.beta_slow < self.beta_fast < math.inf:
            yield (
                f"rope.beta_fast is {self.beta_fast}; it must be above rope.beta_slow {self.beta_slow}, and both above 0; "
                "the paper's values are 32 and 1"
            )


@dataclass(kw_only=True)
class YarnConfig(NTKByPartsConfig):
    """YaRN (arXiv 2309.00071): NTK-by-parts between two rotation counts, plus attention temperature."""

    method: str = "yarn"
    attention_factor: float | None = None
    """Multiplies cos and sin; unset: 0.1 ln(factor) + 1, or the quotient of the two below."""
    mscale: float | None = None
    """With `mscale_all_dim`: attention_factor is (0.1 mscale ln s + 1) / (0.1 mscale_all_dim ln s + 1) (DeepSeek)."""
    mscale_all_dim: float | None = None
    """The divisor's coefficient in the formula of `mscale`; set both or neither."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        for name in ("attention_factor", "mscale", "mscale_all_dim"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                yield f"rope.{name} is {value}; it must be above 0 and finite; unset it for 0.1 ln(factor) + 1"
        if (self.mscale is None) != (self.mscale_all_dim is None):
            given = "mscale" if self.mscale is not None else "mscale_all_dim"
            yield (
                f"rope.{given} is {getattr(self, given)}; engines differ when one of mscale and mscale_all_dim is alone; "
                "set both or neither"
            )
        elif self.mscale is not None and self.attention_factor is not None:
            yield (
                f"rope.attention_factor is {self.attention_factor}; with mscale it would be said twice, and engines differ in which "
                "wins; unset one"
            )


@dataclass(kw_only=True)
class Llama3Config(RopeConfig):
    """The ramp of Llama 3.1 (arXiv 2407.21783; its code): linear in the rotation count between two of them."""

    method: str = "llama3"
    low_freq_factor: float = 1.0
    """Dimensions with fewer rotations than this inside the original window are fully interpolated."""
    high_freq_factor: float = 4.0
    """Dimensions with more rotations than this are kept."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if not 0 < self.low_freq_factor < self.high_freq_factor < math.inf:
            yield (
                f"rope.high_freq_factor is {self.high_freq_factor}; it must be above rope.low_freq_factor {self.low_freq_factor}, and both "
                "above 0; Llama 3.1 has 4 and 1"
            )


@dataclass(kw_only=True)
class LongRopeConfig(RopeConfig):
    """LongRoPE (arXiv 2402.13753): a divisor for each dimension, found by search (`ropewalk calibrate`) or given."""

    method: str = "longrope"
    long_factor: list[float] | None = None
    """Divisor of each frequency, d/2 numbers of at least 1."""
    short_factor: list[float] | None = None
    """The same for texts up to the original window; unset: `long_factor` there too, so that no length switches tables."""
    attention_factor: float | None = None
    """Multiplies cos and sin; unset: sqrt(1 + ln factor / ln original)."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.long_factor is None:
            yield "rope.long_factor is not set; it must be d/2 divisors; give them, or search them with ropewalk calibrate"
        for name in ("long_factor", "short_factor"):
            if any(not 0 < x < math.inf for x in getattr(self, name) or []):
                yield f"rope.{name} has a number that is not above 0 and finite; each divides a frequency; correct it"
        if self.attention_factor is not None and not 0 < self.attention_factor < math.inf:
            yield f"rope.attention_factor is {self.attention_factor}; it must be above 0 and finite; unset it for the paper's"


@dataclass(kw_only=True)
class ABFConfig(RopeConfig):
    """Adjusted base frequency (arXiv 2309.16039): a raised theta, given or solved for the new window."""

    method: str = "abf"
    rope_theta: float | None = None
    """Unset: theta^(ln(T/2pi) / ln(o/2pi)), the least with which the dimensions that saw a full turn still do
    (arXiv 2310.05209, theorem 2)."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.rope_theta is not None and not 1 < self.rope_theta < math.inf:
            yield f"rope.rope_theta is {self.rope_theta}; it must be a finite number above 1; unset it to have it solved"


@dataclass(kw_only=True)
class TableConfig(RopeConfig):
    """A table from a file: `inv_freq`, and `attention_factor` where it is not 1. `calibrate` writes such files, as does `rope`."""

    method: str = "table"
    path: str | None = None
    """JSON with `inv_freq` (d/2 numbers) and, if wanted, `attention_factor`, `factor`, `rope_parameters`."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.path is None:
            yield "rope.path is not set; rope=table reads its frequencies from a file; give e.g. rope.path=runs/demo/calibration/rope.json"

    def _nothing_scaled(self) -> Iterator[str]:
        """The file may say the factor."""
        yield from ()


ROPE_CLASSES: dict[str, type[RopeConfig]] = {
    "none": RopeConfig,
    "pi": PIConfig,
    "ntk": NTKConfig,
    "dynamic": DynamicConfig,
    "ntk_by_parts": NTKByPartsConfig,
    "yarn": YarnConfig,
    "llama3": Llama3Config,
    "longrope": LongRopeConfig,
    "abf": ABFConfig,
    "table": TableConfig,
}
