"""The interface of a task, and what all tasks share. Imports no torch: the report reads tasks too.

N windows   S tokens of a window
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np

from ropewalk.conf.eval import EvalConfig
from ropewalk.data.dataset import BoundaryTokens, Window
from ropewalk.data.retrieval import Passkey
from ropewalk.eval.measure import statistics

T = TypeVar("T")
Rows = Any
"""JSON under `models.MODEL.TASK` of results.json: a list of dicts (perplexity: by length)."""
ModelRows = Mapping[str, Rows]
"""Rows of one task by model column (base, rescaled, extended), without empty ones."""
Verdict = dict[str, Any]


@dataclass(frozen=True)
class EvalSuite:
    """The inputs of all tasks, the same for every model."""

    config: EvalConfig
    base_window: int
    length: int  # longest context, tokens
    windows: list[Window]  # held-out text, `length` tokens each
    fillers: list[np.ndarray]  # of each source: its held-out tokens end to end
    encode: Callable[[str], np.ndarray]
    seed: int
    boundary_tokens: BoundaryTokens = BoundaryTokens()
    layout: Mapping[str, Any] = field(default_factory=dict)
    """How the windows are laid out and where they come from, for results.json."""

    @property
    def contexts(self) -> list[int]:
        """Context lengths to compare: the base's window, doubled up to `length`."""
        return statistics.doublings(min(self.base_window, self.length), self.length)

    @property
    def targets(self) -> int:
        """Tokens at the end of each window whose loss is measured under every context length."""
        shortest = min(self.base_window, self.length)
        return min(self.config.context_gain_tokens or self.base_window // 2, shortest - 1)

    @cached_property
    def draws(self) -> np.ndarray:
        """Bootstrap weights of the windows: (draws, N)."""
        return statistics.resamples([w.origin for w in self.windows], self.seed)

    def last_tokens(self, context: int) -> np.ndarray:
        """The windows' last tokens as documents of `context` tokens: (N, context).

        Each begins as a training document does, so that a context differs in its length only.
        """
        ids, before = np.stack([window.ids for window in self.windows]), self.boundary_tokens.before
        if context == self.length:
            return ids
        texts = ids[:, self.length - context + before :]
        begin = BoundaryTokens(self.boundary_tokens.begin)  # an end token is among the last ones
        return np.stack([begin.lay_out(text) for text in texts])


class Scorer(Protocol):
    """Forward passes of one model over the suite (measure/score.py).

    Every rank calls the same methods in the same order; each does a share of the passes.
    """

    @property
    def full_nll(self) -> np.ndarray:
        """Losses of the suite's windows at full length, computed once: (N, S-1), nats."""

    def window_nll(self, windows: np.ndarray, description: str) -> np.ndarray:
        """Losses in nats of each token but the first: (N, S) -> (N, S-1)."""

    def greedy_correct(
        self, groups: Sequence[Sequence[Passkey]], description: str
    ) -> list[list[bool]]:
        """Whether greedy decoding answers each question of each group exactly."""

    def progress(self, items: Iterable[T], description: str) -> Iterable[T]:
        """`items` with a progress bar that names the model."""


class Task(Protocol):
    """One measurement: its examples, its rows, its verdicts and its part of the page."""

    name: str
    """Key of its rows in results.json; letters, digits and underscores."""
    title: str
    """Heading of its section on the page."""

    def examples(self, suite: EvalSuite) -> Sequence[Any]:
        """The inputs of every model, made before a model is loaded. Raises: DataError."""

    def score(self, model: Scorer, examples: Sequence[Any], suite: EvalSuite) -> Rows:
        """The rows of one model."""

    def verdicts(self, rows: ModelRows, window: int, length: int) -> list[Verdict]:
        """Checks of the rows; called when base and extended are measured and length > window."""

    def figure(self, rows: ModelRows, window: int | None) -> str | None:
        """Inline SVG or HTML; None without rows. `window`: the base's, tokens."""

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        """One sentence under the figure, computed from the same rows."""


def verdict(name: str, number: float, value: str, holds: bool, rule: str) -> Verdict:
    """One check: its name, its number, the number as text, the rule, and whether the rule holds."""
    return {"name": name, "number": number, "value": value, "rule": rule, "holds": bool(holds)}
