"""What is done about a loss that is no number or leaps: judged before the step, from what all ranks know, so all judge alike."""

import math
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from ropewalk.conf.errors import RopewalkError
from ropewalk.conf.train import StabilityConfig

MAD = 1.4826  # median deviation to standard deviation, of a normal distribution
LEAST = 0.01  # of the median: steps that hardly differ make no leap of a rounding


class StepDecision(NamedTuple):
    """`action`: apply, skip, rollback or stop."""

    action: str = "apply"
    why: str = ""


def is_spike(value: float, before: Sequence[float], mads: float, least: int) -> bool:
    """Whether `value` is above what came before; never with fewer than `least` of those."""
    if len(before) < least:
        return False
    middle = median(before)
    deviation = max(MAD * median([abs(x - middle) for x in before]), LEAST * abs(middle))
    return value > middle + mads * deviation


def decide(
    loss: float, norm: float, losses: Sequence[float], norms: Sequence[float], rule: StabilityConfig
) -> StepDecision:
    """`losses`, `norms`: of the steps before that were applied, at most `spike_window_steps` of them."""
    for name, value in (("loss", loss), ("gradient norm", norm)):
        if not math.isfinite(value):
            return StepDecision(rule.on_nan, f"{name} is {value}; it must be finite")
    if rule.on_spike == "ignore":
        return StepDecision()
    for name, value, before in (("loss", loss, losses), ("gradient norm", norm, norms)):
        if is_spike(value, before, rule.spike_threshold_mads, rule.spike_window_steps // 4):
            return StepDecision(
                rule.on_spike,
                f"{name} is {value:.4g}; the {len(before)} before have a median of {median(before):.4g}",
            )
    return StepDecision()


class StabilityPolicy:
    """A run's: what came before, and which batches are left out. All of it is in the checkpoint, so a resumed run judges alike."""

    def __init__(self, rule: StabilityConfig, state: dict[str, Any]) -> None:
        self.rule = rule
        self.losses: list[float] = state.setdefault("losses", [])
        self.norms: list[float] = state.setdefault("norms", [])
        self.left_out: dict[str, dict[str, Any]] = state.setdefault("left_out", {})
        self.verdict = StepDecision()

    def admit(self, step: int, loss: float, norm: float) -> bool:
        """Whether the optimizer takes this step (from 0); `verdict` says why not."""
        self.verdict = decide(loss, norm, self.losses, self.norms, self.rule)
        if self.verdict.action == "apply":
            for kept, value in ((self.losses, loss), (self.norms, norm)):
                kept.append(value)
                del kept[: -self.rule.spike_window_steps]
            return True
        self.left_out[str(step)] = {
            "event": self.verdict.action,
            "why": self.verdict.why,
            "loss": loss if math.isfinite(loss) else None,
            "grad_norm": norm if math.isfinite(norm) else None,
        }
        return False

    def line(self, step: int) -> dict[str, Any]:
        """The line of metrics.jsonl of a step that was left out."""
        return {"step": step + 1, **self.left_out[str(step)]}

    def refuse(self, step: int) -> None:
        """Raises: RopewalkError where the policy says stop, or too many batches are left out."""
        if self.verdict.action == "stop":
            raise RopewalkError(
                f"{self.verdict.why}, at step {step + 1}, which was not taken; lower train.optimizer.lr, look at the batch, or set "
                "train.stability.on_nan or on_spike"
            )
        if len(self.left_out) > self.rule.max_skips:
            raise RopewalkError(
                f"{len(self.left_out)} batches are left out, the last at step {step + 1} ({self.verdict.why}); train.stability.max_skips is "
                f"{self.rule.max_skips}; lower train.optimizer.lr, or raise it"
            )
