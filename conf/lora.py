"""Settings of low-rank adapters."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from ropewalk.conf.rules import is_default, setting

LINEAR, ATTENTION = "all-linear", "attention"


@dataclass(kw_only=True)
class LoraConfig:
    """LoRA (arXiv 2106.09685) by peft: two low-rank matrices beside each target are trained
    instead of its weight. Needs `pip install 'ropewalk[lora]'`."""

    rank: int = setting(0, at_least=0, way_out="0 is off")
    """Inner dimension of the low-rank matrices; 0: no adapter, all weights are trained."""
    alpha: float | None = setting(None, above=0, way_out="unset it for twice the rank")
    """The product is scaled by alpha / rank; unset: twice the rank."""
    dropout: float = setting(0.0, at_least=0, below=1, way_out="0 is off")
    """Probability of dropping an input of the adapter, in training."""
    targets: Any = ATTENTION
    """attention (its linear layers), all-linear (every linear layer but the head), or names such
    as [q_proj, v_proj]."""
    embeddings: bool = False
    """Train the embeddings too, in full; a head that is tied to them stays tied (LongLoRA, arXiv
    2309.12307: long context needs it)."""
    norms: bool = False
    """Train the norms too, in full (LongLoRA)."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) (arXiv 2312.03732)."""
    dora: bool = False
    """Train the magnitude of each weight's columns beside their direction (arXiv 2402.09353)."""
    init: str = setting("default", one_of=("default", "gaussian", "orthogonal"))
    """default (Kaiming and zeros), gaussian or orthogonal; drawn from `seed`."""
    quantize: str = setting("none", one_of=("none", "nf4"))
    """nf4 (QLoRA, arXiv 2305.14314): the frozen weights in 4 bits, by bitsandbytes; needs `pip
    install 'ropewalk[qlora]'`."""

    @property
    def names(self) -> list[str]:
        """`targets` as a list."""
        return list(self.targets) if isinstance(self.targets, list) else [self.targets]

    def problems(self, prefix: str) -> Iterator[str]:
        if self.rank == 0:
            yield from self._unused(prefix)
            return
        if not self.names or not all(isinstance(target, str) for target in self.names):
            yield (
                f"{prefix}targets is {self.targets}; it must be {ATTENTION}, {LINEAR} or names; "
                f"e.g. {prefix}targets=[q_proj,v_proj]"
            )
        if self.init == "orthogonal" and self.rank % 2:
            yield (
                f"{prefix}rank is {self.rank}; with {prefix}init=orthogonal it must be even; set "
                f"{self.rank + 1}"
            )

    def _unused(self, prefix: str) -> Iterator[str]:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name != "rank" and not is_default(item, value):
                yield (
                    f"{prefix}{item.name} is {value}; it belongs to LoRA, and {prefix}rank is 0; "
                    f"set {prefix}rank=8"
                )
