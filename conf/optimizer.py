"""Settings of the optimizer: learning rate by step and by parameter, what decays, what is trained at all."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ropewalk.conf.fields import fingerprint_if_set

SCHEDULES = ("constant", "linear", "cosine", "inverse_sqrt", "wsd")
DECAY_SHAPES = ("linear", "sqrt", "cosine")


@dataclass(kw_only=True)
class LrGroupConfig:
    """Parameters with a learning rate of their own."""

    pattern: str
    """Regular expression, searched in the parameter's name; the first group that matches counts."""
    lr_scale: float
    """Their learning rate is this times that of the step."""


@dataclass(kw_only=True)
class OptimizerConfig:
    schedule: str = "cosine"
    """After the warm-up, down to `min_lr_ratio`: constant, linear, cosine, inverse_sqrt (sqrt(warmup_steps / step)) or wsd (constant,
    then down in the last `decay_steps`)."""
    warmup_steps: int = 0
    min_lr_ratio: float = 0.0
    decay_steps: int | None = fingerprint_if_set()
    """wsd: how many steps at the end go down; unset: a tenth of `steps`."""
    decay_shape: str = fingerprint_if_set("linear")
    """wsd: linear, sqrt (1 - sqrt, arXiv 2405.18392) or cosine."""
    weight_decay: float = 0.0
    """Of matrices; vectors, norms and biases never decay."""
    decay_embeddings: bool = fingerprint_if_set(True)
    """Whether embeddings are among the matrices that decay."""
    layer_lr_decay: float = fingerprint_if_set(1.0)
    """Below 1: the learning rate is multiplied by it once a layer from the top, the embeddings last (BEiT, arXiv 2106.08254)."""
    lr_groups: list[LrGroupConfig] = fingerprint_if_set(default_factory=list)
    """Parameters with a learning rate of their own, by name, such as [{pattern: lora_B, lr_scale: 16}]."""
    trainable: list[str] = fingerprint_if_set(default_factory=list)
    """Regular expressions: of the model's own parameters, only those whose name matches one are trained. Empty: all, or none with
    LoRA, whose own tensors are trained in any case."""
    freeze: list[str] = fingerprint_if_set(default_factory=list)
    """Regular expressions: parameters whose name matches one are not trained, whatever else says so."""

    def optimizing_problems(self, steps: int) -> Iterator[str]:
        if self.schedule not in SCHEDULES:
            yield f"train.schedule is {self.schedule}; it must be one of {', '.join(SCHEDULES)}; choose one"
        if self.decay_shape not in DECAY_SHAPES:
            yield f"train.decay_shape is {self.decay_shape}; it must be one of {', '.join(DECAY_SHAPES)}; choose one"
        if self.warmup_steps < 0:
            yield f"train.warmup_steps is {self.warmup_steps}; it must be at least 0; raise it"
        for name in ("min_lr_ratio", "weight_decay"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                yield f"train.{name} is {value}; it must be a finite number of at least 0; raise it"
        if not 0 < self.layer_lr_decay <= 1:
            yield f"train.layer_lr_decay is {self.layer_lr_decay}; it must be above 0 and at most 1; 1 is off"
        yield from self._decay_problems(steps)
        yield from self._pattern_problems()

    def _decay_problems(self, steps: int) -> Iterator[str]:
        if self.decay_steps is None:
            return
        if self.schedule != "wsd":
            yield f"train.decay_steps is {self.decay_steps}; it is of train.schedule wsd, not {self.schedule}; unset it"
        elif not 1 <= self.decay_steps <= max(1, steps - self.warmup_steps):
            yield (
                f"train.decay_steps is {self.decay_steps}; it must be between 1 and what train.warmup_steps {self.warmup_steps} leaves of "
                f"train.steps {steps}; lower it"
            )

    def _pattern_problems(self) -> Iterator[str]:
        for at, group in enumerate(self.lr_groups):
            yield from _pattern(f"train.lr_groups[{at}].pattern", group.pattern)
            if not (math.isfinite(group.lr_scale) and group.lr_scale > 0):
                yield (
                    f"train.lr_groups[{at}].lr_scale is {group.lr_scale}; it must be a finite number above 0; "
                    "to train them not at all use train.freeze"
                )
        for name in ("trainable", "freeze"):
            for at, pattern in enumerate(getattr(self, name)):
                yield from _pattern(f"train.{name}[{at}]", pattern)

    def patterns(self) -> dict[str, str]:
        """Each pattern by the setting that it stands in."""
        found = {
            f"train.lr_groups[{at}].pattern": group.pattern
            for at, group in enumerate(self.lr_groups)
        }
        for name in ("trainable", "freeze"):
            found |= {
                f"train.{name}[{at}]": pattern for at, pattern in enumerate(getattr(self, name))
            }
        return found


def _pattern(at: str, pattern: Any) -> Iterator[str]:
    try:
        re.compile(pattern)
    except re.error as error:
        yield f"{at} is {pattern}; it must be a regular expression ({error}); correct it"
