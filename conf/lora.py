"""Settings of low-rank adapters."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from ropewalk.conf.fields import is_default

INITS = ("default", "gaussian", "orthogonal")
QUANTIZE = ("none", "nf4")
LINEAR, ATTENTION = "all-linear", "attention"


@dataclass(kw_only=True)
class LoraConfig:
    """LoRA (arXiv 2106.09685) by peft: two thin matrices beside each target are trained instead of its weight. Needs
    `pip install 'ropewalk[lora]'`."""

    rank: int = 0
    """Columns of the thin matrices; 0: no adapter, all weights are trained."""
    alpha: float | None = None
    """What the product is scaled by, over `rank`; unset: twice the rank."""
    dropout: float = 0.0
    """On what the adapter reads, in training."""
    targets: Any = ATTENTION
    """attention (its linear layers), all-linear (every linear layer but the head), or names such as [q_proj, v_proj]."""
    embeddings: bool = False
    """Train the embeddings too, in full; a head that is tied to them stays so (LongLoRA, arXiv 2309.12307: long context needs it)."""
    norms: bool = False
    """Train the norms too, in full (LongLoRA)."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) (arXiv 2312.03732)."""
    dora: bool = False
    """Train the size of each weight's columns beside their direction (arXiv 2402.09353)."""
    init: str = "default"
    """default (Kaiming and zeros), gaussian or orthogonal; a function of `seed`."""
    quantize: str = "none"
    """nf4 (QLoRA, arXiv 2305.14314): the frozen weights in 4 bits, by bitsandbytes; needs `pip install 'ropewalk[qlora]'`."""

    @property
    def names(self) -> list[str]:
        """`targets` as a list."""
        return [self.targets] if isinstance(self.targets, str) else list(self.targets)

    def problems(self, at: str, zero_stage: int) -> Iterator[str]:
        if self.rank < 0:
            yield f"{at}.rank is {self.rank}; it must be at least 0; 0 is off"
        if self.rank == 0:
            for key in (
                f
                for f in fields(self)
                if f.name != "rank" and not is_default(f, getattr(self, f.name))
            ):
                yield f"{at}.{key.name} is {getattr(self, key.name)}; it is of LoRA, and {at}.rank is 0; set {at}.rank=8"
            return
        if self.alpha is not None and not (math.isfinite(self.alpha) and self.alpha > 0):
            yield f"{at}.alpha is {self.alpha}; it must be a finite number above 0; e.g. {2 * self.rank}"
        if not 0 <= self.dropout < 1:
            yield f"{at}.dropout is {self.dropout}; it must be at least 0 and below 1; 0 is off"
        if (
            not isinstance(self.targets, (str, list))
            or not self.names
            or not all(isinstance(t, str) for t in self.names)
        ):
            yield f"{at}.targets is {self.targets}; it must be {ATTENTION}, {LINEAR} or names; e.g. {at}.targets=[q_proj,v_proj]"
        for name, choices in (("init", INITS), ("quantize", QUANTIZE)):
            if getattr(self, name) not in choices:
                yield f"{at}.{name} is {getattr(self, name)}; it must be one of {', '.join(choices)}; choose one"
        if self.init == "orthogonal" and self.rank % 2:
            yield f"{at}.rank is {self.rank}; with {at}.init=orthogonal it must be even; set {self.rank + 1}"
        if self.quantize == "nf4" and zero_stage == 3:
            yield f"{at}.quantize is nf4; weights of 4 bits are not cut into pieces; set train.zero_stage=2"
