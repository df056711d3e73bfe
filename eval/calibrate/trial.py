"""What a candidate is, what was measured of it, and how losses become the one number that is minimised. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ropewalk.conf.scaling import ROPE_CLASSES, RopeConfig


@dataclass(frozen=True)
class Candidate:
    """Settings of a method, and the coordinates that its searcher moves."""

    searcher: str  # paper, ramp or longrope
    settings: dict[str, Any]  # the method's own: method, beta_fast, long_factor ...
    place: dict[str, Any] = field(default_factory=dict)

    @property
    def rope(self) -> RopeConfig:
        return ROPE_CLASSES[self.settings["method"]](**self.settings)


def paper(method: str, factor: float) -> Candidate:
    """A method with its paper's settings."""
    return Candidate("paper", {"method": method, "factor": factor})


@dataclass(frozen=True)
class Loss:
    """Mean loss a token, nats."""

    inside: float  # at positions inside the original window
    beyond: float
    value: float  # what is minimised


@dataclass(frozen=True)
class Trial:
    """A candidate that was measured: at a short prefix, and whole unless it was pruned there."""

    number: int
    candidate: Candidate
    short: Loss
    whole: Loss | None
    passes: float  # forward passes of a whole window that it cost
    each: tuple[float, ...] = ()  # what is minimised, of each stretch read whole

    @property
    def value(self) -> float:
        """To rank by: a pruned one stands behind every whole one."""
        return self.short.value + 1e6 if self.whole is None else self.whole.value


def loss(nll: np.ndarray, window: int, inside_weight: float) -> Loss:
    """`nll` (N, S-1): column j is the loss of position j + 1. `window`: the base's, tokens, below S."""
    inside, beyond = (float(part.mean()) for part in halves(nll, window))
    return Loss(inside, beyond, inside_weight * inside + (1 - inside_weight) * beyond)


def halves(nll: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses at positions inside the original window, and beyond it: (N, window-1) and (N, S-window)."""
    return nll[:, : window - 1], nll[:, window - 1 :]


def weighted(nll: np.ndarray, window: int, inside_weight: float) -> np.ndarray:
    """What is minimised, of each stretch: (N, 1)."""
    inside, beyond = (part.mean(axis=1, keepdims=True) for part in halves(nll, window))
    return np.asarray(inside_weight * inside + (1 - inside_weight) * beyond)


def survives(short: Loss, finished: Sequence[Trial]) -> bool:
    """Whether a candidate's short prefix is among the better half of those before it; the papers' own are never pruned."""
    before = sorted(t.short.value for t in finished)
    return not before or short.value <= before[(len(before) - 1) // 2]


def best(finished: Sequence[Trial]) -> Trial:
    """The first of the lowest."""
    return min((t for t in finished if t.whole is not None), key=lambda t: t.value)


def spent(finished: Sequence[Trial]) -> float:
    return sum(t.passes for t in finished)
