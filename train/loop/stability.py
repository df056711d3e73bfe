"""The policy for NaN losses and loss spikes, applied before the step.

It reads only values that all ranks share, so all decide alike.
"""

import math
from collections.abc import Sequence
from statistics import median
from typing import Any, NamedTuple

from ropewalk.conf.errors import RopewalkError
from ropewalk.conf.train import StabilityConfig

MAD_TO_STD = 1.4826  # median absolute deviation to standard deviation, of a normal distribution
MIN_DEVIATION = 0.01  # of the median, so that rounding is no spike among steps that hardly differ


class StepDecision(NamedTuple):
    """`action`: apply, skip, rollback or stop."""

    action: str = "apply"
    reason: str = ""


def is_spike(value: float, history: Sequence[float], mads: float, min_history: int) -> bool:
    """Whether `value` exceeds the median of `history` by `mads` deviations; False if too short."""
    if len(history) < min_history:
        return False
    middle = median(history)
    deviation = max(
        MAD_TO_STD * median([abs(x - middle) for x in history]), MIN_DEVIATION * abs(middle)
    )
    return value > middle + mads * deviation


def decide(
    loss: float, norm: float, losses: Sequence[float], norms: Sequence[float], rule: StabilityConfig
) -> StepDecision:
    """`losses`, `norms`: of the last applied steps, at most `spike_window_steps` of them."""
    for name, value in (("loss", loss), ("gradient norm", norm)):
        if not math.isfinite(value):
            return StepDecision(rule.on_nan, f"{name} is {value}; it must be finite")
    if rule.on_spike == "ignore":
        return StepDecision()
    for name, value, history in (("loss", loss, losses), ("gradient norm", norm, norms)):
        if is_spike(value, history, rule.spike_threshold_mads, rule.spike_window_steps // 4):
            return StepDecision(
                rule.on_spike,
                f"{name} is {value:.4g}; the {len(history)} before have a median of "
                f"{median(history):.4g}",
            )
    return StepDecision()


class StabilityPolicy:
    """A run's recent losses and skipped batches, kept in the checkpoint's `state`, so that a
    resumed run decides alike."""

    def __init__(self, rule: StabilityConfig, state: dict[str, Any]) -> None:
        self.rule = rule
        self.losses: list[float] = state.setdefault("losses", [])
        self.norms: list[float] = state.setdefault("norms", [])
        self.skipped: dict[str, dict[str, Any]] = state.setdefault("left_out", {})
        self.decision = StepDecision()

    def accept_step(self, step: int, loss: float, norm: float) -> bool:
        """Whether the optimizer takes this step (from 0); `decision` holds the reason if not."""
        self.decision = decide(loss, norm, self.losses, self.norms, self.rule)
        if self.decision.action == "apply":
            for history, value in ((self.losses, loss), (self.norms, norm)):
                history.append(value)
                del history[: -self.rule.spike_window_steps]
            return True
        self.skipped[str(step)] = {
            "event": self.decision.action,
            "why": self.decision.reason,
            "loss": loss if math.isfinite(loss) else None,
            "grad_norm": norm if math.isfinite(norm) else None,
        }
        return False

    def skipped_line(self, step: int) -> dict[str, Any]:
        """The line of metrics.jsonl of a skipped step."""
        return {"step": step + 1, **self.skipped[str(step)]}

    def refuse_to_continue(self, step: int) -> None:
        """Raises: RopewalkError when the policy is to stop, or too many batches were skipped."""
        reason = self.decision.reason
        if self.decision.action == "stop":
            raise RopewalkError(
                f"{reason}, at step {step + 1}, which was not applied; lower train.optimizer.lr, "
                "look at the batch, or set train.stability.on_nan or on_spike"
            )
        if len(self.skipped) > self.rule.max_skips:
            raise RopewalkError(
                f"{len(self.skipped)} batches were skipped, the last at step {step + 1} "
                f"({reason}); train.stability.max_skips is {self.rule.max_skips}; "
                "lower train.optimizer.lr, or raise it"
            )
