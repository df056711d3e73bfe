"""What is minimised, and on how much text a step: settings of the train stage that decide its content."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ropewalk.conf.fields import fingerprint_if_set


@dataclass(kw_only=True)
class LossConfig:
    z_loss: float = fingerprint_if_set(0.0)
    """Coefficient of the mean of logsumexp(logits)^2 over the labels that count, which keeps logits from growing (PaLM, arXiv
    2204.02311, section 5: 1e-4). 0: none. The loss that is told stays the cross-entropy."""

    batch_ramp: list[list[int]] = fingerprint_if_set(default_factory=list)
    """[[step, tokens], ...]: the global batch from that step on (the first step is 1); before the first of them it is
    `global_batch_tokens`. Learning rates stay those of the step."""
    mixed_windows: bool = fingerprint_if_set(False)
    """Documents that fit the base's window are read with the base's own rotary table, longer ones with the plan's (LongRoPE2, arXiv
    2502.20082). The export is the plan's model; a server has the same quality on short prompts only if it too goes back to the
    base's table for them."""

    def mixed_problems(self, method: str, pose: int | None) -> Iterator[str]:
        if self.mixed_windows and method == "none":
            yield "train.mixed_windows is True; rope=none has one table for all lengths; choose rope=yarn, or set it to false"
        if self.mixed_windows and pose is not None:
            yield (
                f"train.mixed_windows is True; with data.pose.target_length {pose} short text stands for long text, and must have the plan's "
                "table; unset one of them"
            )

    def objective_problems(self) -> Iterator[str]:
        if not (math.isfinite(self.z_loss) and self.z_loss >= 0):
            yield f"train.z_loss is {self.z_loss}; it must be a finite number of at least 0; e.g. 1e-4"
        pairs = all(len(pair) == 2 for pair in self.batch_ramp)
        steps = [1, *(pair[0] for pair in self.batch_ramp)] if pairs else []
        if not pairs or any(a >= b for a, b in zip(steps, steps[1:], strict=False)):
            yield (
                f"train.batch_ramp is {self.batch_ramp}; it must be pairs [step, tokens] whose steps rise and lie above 1; "
                "e.g. [[100, 2097152], [200, 4194304]]"
            )
