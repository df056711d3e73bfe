"""Candidates, trials, and the objective: losses as the one number that is minimised. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ropewalk.conf.rope_methods import ROPE_METHODS, RopeConfig


@dataclass(frozen=True)
class Candidate:
    """Settings of a method, and the search coordinates behind them."""

    searcher: str  # paper, ramp or longrope
    settings: dict[str, Any]  # the method's own: method, beta_fast, long_factor ...
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def rope(self) -> RopeConfig:
        return ROPE_METHODS[self.settings["method"]](**self.settings)


def paper(method: str, factor: float) -> Candidate:
    """A method with its paper's settings."""
    return Candidate("paper", {"method": method, "factor": factor})


@dataclass(frozen=True)
class Loss:
    """Mean loss a token, nats."""

    inside: float  # at positions inside the original window
    beyond: float
    value: float  # the objective, minimised


@dataclass(frozen=True)
class Trial:
    """A measured candidate: on short prefixes, and on full windows unless it was pruned."""

    number: int
    candidate: Candidate
    short: Loss
    full: Loss | None
    passes: float  # its cost in forward passes of a full window
    per_window: tuple[float, ...] = ()  # objective of each full window

    @property
    def value(self) -> float:
        """The ranking value: a pruned trial ranks behind every full one."""
        return self.short.value + 1e6 if self.full is None else self.full.value


def loss(nll: np.ndarray, window: int, inside_weight: float) -> Loss:
    """`nll` (N, S-1): column j is the loss of position j + 1. `window`: the base's, below S."""
    inside, beyond = (float(part.mean()) for part in split_at_window(nll, window))
    return Loss(inside, beyond, inside_weight * inside + (1 - inside_weight) * beyond)


def split_at_window(nll: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses inside the original window and beyond it: (N, window-1) and (N, S-window)."""
    return nll[:, : window - 1], nll[:, window - 1 :]


def objective_per_window(nll: np.ndarray, window: int, inside_weight: float) -> np.ndarray:
    """The objective of each window: (N, 1)."""
    inside, beyond = (part.mean(axis=1, keepdims=True) for part in split_at_window(nll, window))
    return np.asarray(inside_weight * inside + (1 - inside_weight) * beyond)


def survives(short: Loss, finished: Sequence[Trial]) -> bool:
    """Whether a short-prefix loss is at most the median of the finished trials'."""
    values = sorted(trial.short.value for trial in finished)
    return not values or short.value <= values[(len(values) - 1) // 2]


def best(finished: Sequence[Trial]) -> Trial:
    """The full trial with the lowest value; the first of equals."""
    return min((t for t in finished if t.full is not None), key=lambda t: t.value)


def spent(finished: Sequence[Trial]) -> float:
    return sum(t.passes for t in finished)
