"""Settings of the optimizer and of the learning rate: by step, by parameter, and which
parameters are trained at all."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ropewalk.conf.rules import setting


@dataclass(kw_only=True)
class LrGroupConfig:
    """Parameters with a learning rate of their own."""

    pattern: str
    """Regular expression, searched in the parameter's name; the first group that matches counts."""
    lr_scale: float = setting(
        above=0, way_out="to freeze the parameters, use train.optimizer.freeze"
    )
    """Factor on the step's learning rate."""


@dataclass(kw_only=True)
class OptimizerConfig:
    """AdamW, and which parameters it trains with which learning rate and decay."""

    name: str = setting("adamw", one_of=("adamw", "adamw_8bit"), fingerprint="if_set")
    """adamw (torch's fused one; DeepSpeed's CPU AdamW when a GPU's optimizer is offloaded), or
    adamw_8bit (bitsandbytes: moments in 8 bits)."""
    lr: float = setting(above=0, way_out="e.g. train.optimizer.lr=2e-5")
    """Peak learning rate, reached at the end of the warm-up."""
    betas: list[float] = setting(factory=lambda: [0.9, 0.95], at_least=0, below=1)
    """AdamW's decay rates of the first and the second moment."""
    eps: float = setting(1e-8, at_least=0)
    """AdamW's term in the denominator, against division by zero."""
    weight_decay: float = setting(0.0, at_least=0)
    """Decoupled weight decay of matrices; vectors, norms and biases never decay."""
    gradient_clipping: float = setting(1.0, at_least=0)
    """Largest global norm of the gradient; 0: no clipping."""
    decay_embeddings: bool = setting(True, fingerprint="if_set")
    """Whether the embeddings decay as other matrices do."""
    layer_lr_decay: float = setting(
        1.0, above=0, at_most=1, way_out="1 is off", fingerprint="if_set"
    )
    """Below 1: the learning rate is multiplied by this once per layer below the top, embeddings
    last (BEiT, arXiv 2106.08254)."""
    lr_groups: list[LrGroupConfig] = setting(factory=list, fingerprint="if_set")
    """Parameters with a learning rate of their own, by name, such as [{pattern: lora_B,
    lr_scale: 16}]."""
    trainable: list[str] = setting(factory=list, fingerprint="if_set")
    """Regular expressions: of the model's own parameters, only those whose name matches one are
    trained. Empty: all, or none with LoRA, whose own tensors are always trained."""
    freeze: list[str] = setting(factory=list, fingerprint="if_set")
    """Regular expressions: parameters whose name matches one are not trained; this overrides
    every other setting."""

    def problems(self, prefix: str) -> Iterator[str]:
        if len(self.betas) != 2:
            yield f"{prefix}betas is {self.betas}; it must be two numbers; e.g. [0.9, 0.95]"
        for name, pattern in self.patterns(prefix).items():
            yield from _pattern_problems(name, pattern)

    def patterns(self, prefix: str = "train.optimizer.") -> dict[str, str]:
        """Every regular expression, by its key."""
        return {
            **{f"{prefix}lr_groups[{n}].pattern": g.pattern for n, g in enumerate(self.lr_groups)},
            **{f"{prefix}trainable[{n}]": pattern for n, pattern in enumerate(self.trainable)},
            **{f"{prefix}freeze[{n}]": pattern for n, pattern in enumerate(self.freeze)},
        }


@dataclass(kw_only=True)
class ScheduleConfig:
    """The learning rate by step."""

    kind: str = setting("cosine", one_of=("constant", "linear", "cosine", "inverse_sqrt", "wsd"))
    """After the warm-up, down to `min_lr_ratio`: constant, linear, cosine, inverse_sqrt
    (sqrt(warmup_steps / step)) or wsd (constant, then down during the last `decay_steps`)."""
    warmup_steps: int = setting(0, at_least=0)
    """Steps in which the learning rate rises linearly to its peak."""
    min_lr_ratio: float = setting(0.0, at_least=0, at_most=1, way_out="1 keeps the peak")
    """Learning rate at the end of the schedule, as a fraction of the peak."""
    decay_steps: int | None = setting(None, fingerprint="if_set")
    """wsd: number of steps at the end in which the learning rate goes down; unset: a tenth of
    `train.steps`."""
    decay_shape: str = setting("linear", one_of=("linear", "sqrt", "cosine"), fingerprint="if_set")
    """wsd: linear, sqrt (1 - sqrt, arXiv 2405.18392) or cosine."""

    def decay_problems(self, prefix: str, steps: int) -> Iterator[str]:
        """`steps`: of the training."""
        if self.decay_steps is None:
            return
        if self.kind != "wsd":
            yield (
                f"{prefix}decay_steps is {self.decay_steps}; it belongs to {prefix}kind wsd, not "
                f"{self.kind}; unset it"
            )
        elif not 1 <= self.decay_steps <= max(1, steps - self.warmup_steps):
            yield (
                f"{prefix}decay_steps is {self.decay_steps}; it must be between 1 and what "
                f"{prefix}warmup_steps {self.warmup_steps} leaves of train.steps {steps}; lower it"
            )


def _pattern_problems(key: str, pattern: str) -> Iterator[str]:
    try:
        re.compile(pattern)
    except re.error as error:
        yield f"{key} is {pattern}; it must be a regular expression ({error}); correct it"
