"""The interface of a task, and what all tasks share. Imports no torch: the report reads tasks too.

N windows   S tokens of a window
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from typing import Any, Protocol, TypeVar

import numpy as np

from ropewalk.conf.artifacts.records import fingerprint
from ropewalk.conf.errors import DataError
from ropewalk.conf.eval import EvalConfig
from ropewalk.data.dataset import BoundaryTokens, Window
from ropewalk.eval.measure import statistics
from ropewalk.eval.measure.gates import Verdict as Verdict
from ropewalk.eval.measure.statistics import PAIRED, Estimate
from ropewalk.eval.requests import Request, Result, Text

T = TypeVar("T")
Rows = Any
"""JSON under `models.MODEL.TASK` of results.json: a list of dicts (perplexity: by length)."""
ModelRows = Mapping[str, Rows]
"""Rows of one task by model column (base, rescaled, extended), without empty ones."""


@dataclass(frozen=True)
class ColumnFacts:
    """What a task may know of a column before its model is loaded."""

    window: int
    """`max_position_embeddings`, tokens."""
    table_by_length: bool = False
    """Whether its rotary table depends on the length of the text (dynamic NTK, LongRoPE): then
    the losses of a text's first tokens are not those of a longer text."""


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
    decode: Callable[[Iterable[int]], str] | None = None
    """The text of token ids, without special tokens; of a reply: of its new ids alone."""
    chat: Callable[[str, str], np.ndarray] | None = None
    """Ids of a user's message in the model's chat template, and of the reply's first words."""
    layout: Mapping[str, Any] = field(default_factory=dict)
    """How the windows are laid out and where they come from, for results.json."""
    documents: Sequence[Window] = ()
    """Every held-out document whole, without boundary tokens."""
    bos: int | None = None
    """What the tokenizer names as the token before a text, whether or not training uses it."""
    count_bytes: Callable[[np.ndarray], np.ndarray | None] | None = None
    """Bytes of each token of a text (S,); None where the tokenizer does not give its ids back."""
    columns: Mapping[str, ColumnFacts] = field(default_factory=dict)
    """The models that are measured, by name; empty before they are known."""

    @cached_property
    def _shared(self) -> dict[str, Any]:
        return {}

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What `make` returned when this was first called with `name`: tasks share samples."""
        if name not in self._shared:
            self._shared[name] = make()
        value: T = self._shared[name]
        return value

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
    def draws(self) -> statistics.Resamples:
        """Bootstrap draws of the windows' documents."""
        return statistics.resamples([w.origin for w in self.windows], self.seed)

    @cached_property
    def haystack_hash(self) -> str:
        """Of the held-out tokens that haystacks are made of."""
        hashes = [sha256(np.asarray(text, "<i8").tobytes()).hexdigest() for text in self.fillers]
        return fingerprint(hashes)[:16]

    def filler(self, length: int, turn: int) -> np.ndarray:
        """Text for a haystack of `length` tokens: of the sources that have as many, in turn."""
        enough = [text for text in self.fillers if len(text) >= length]
        texts = enough or [np.concatenate(self.fillers)]
        return texts[turn % len(texts)]

    def refuse_short_filler(self, key: str, lengths: Sequence[int]) -> None:
        """`key`: the setting that asks for haystacks of `lengths` tokens. Raises: DataError."""
        tokens = sum(map(len, self.fillers))
        if tokens < max(lengths):
            raise DataError(
                f"{key} is {list(lengths)}; held-out text has {tokens} tokens; raise "
                "data.heldout_share or lower the lengths"
            )

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


@dataclass(frozen=True)
class Sample:
    """A request of a task, and what its result counts as."""

    id: str
    """Names it in samples.jsonl, such as `passkey/2048/0.5/003`; unique in its task."""
    unit: str
    """The document, haystack or question that the bootstrap resamples as one."""
    request: Request
    facts: Mapping[str, Any] = field(default_factory=dict)
    """JSON that stands beside the result in samples.jsonl: length, depth, key, ..."""
    columns: tuple[str, ...] = ()
    """The columns that are asked; empty: all."""

    def is_asked(self, column: str) -> bool:
        return not self.columns or column in self.columns


@dataclass(frozen=True)
class Measured:
    """The results of one model column for a task: all that its rows are computed from."""

    suite: EvalSuite
    samples: Sequence[Sample]
    results: Sequence[Result]
    """One a sample."""
    base: Sequence[Result] | None = None
    """Of the base for the same samples, for paired differences; None without one."""
    label: str = ""
    """The column's name."""
    by_column: Mapping[str, "Measured"] = field(default_factory=dict)
    """What every column was asked for this task, for rows that depend on another column."""
    reference: str = "base"
    """The column that `base` has the results of."""

    @property
    def reference_column(self) -> "Measured | None":
        """The other column that this one is compared with, with all that it was asked."""
        return None if self.label == self.reference else self.by_column.get(self.reference)

    def select(self, **facts: Any) -> "Measured":
        """The samples with these facts."""
        numbers = [
            n
            for n, sample in enumerate(self.samples)
            if all(sample.facts.get(key) == value for key, value in facts.items())
        ]
        base = None if self.base is None else [self.base[n] for n in numbers]
        samples = [self.samples[n] for n in numbers]
        results = [self.results[n] for n in numbers]
        return replace(self, samples=samples, results=results, base=base)

    @property
    def of_base(self) -> "Measured | None":
        """The base's results of the same samples; None without them."""
        return None if self.base is None else replace(self, results=self.base, base=None)

    @property
    def losses(self) -> np.ndarray:
        """Of samples with equally many losses: (N, tokens) float64, nats."""
        return np.stack([np.asarray(result, np.float64) for result in self.results])


def window_samples(suite: EvalSuite) -> list[Sample]:
    """The held-out windows at full length; tasks that read them share one pass."""
    return [
        Sample(f"window/{number:03}", window.origin, Text(window.ids), {"length": suite.length})
        for number, window in enumerate(suite.windows)
    ]


@dataclass(frozen=True)
class Comparison:
    """A task's rows of two columns that read the same tokens: the judged one and its reference."""

    judged: str
    reference: str
    rows: ModelRows
    """Of these two, and of the other columns that read the same tokens."""
    window: int
    """The base's, tokens."""
    length: int
    """Longest context, tokens."""

    @property
    def is_past_window(self) -> bool:
        """Whether text past the window was measured: without it, only the cost inside is judged."""
        return self.length > self.window

    @property
    def judged_rows(self) -> Rows:
        return self.rows[self.judged]


class Task(Protocol):
    """One measurement: its samples, its rows, its verdicts and its part of the page.

    A task inherits from it, and has at least a name, a title, samples and rows; the page shows
    the rows as a table.
    """

    name: str
    """Key of its rows in results.json; letters, digits and underscores."""
    title: str
    """Heading of its section on the page."""

    @abstractmethod
    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        """What every model is asked, made before a model is loaded. Raises: DataError.

        Samples of two tasks with equal requests are measured once.
        """

    @abstractmethod
    def rows(self, measured: Measured) -> Rows:
        """The rows of one model, from results alone: no model is needed."""

    def scores(self, suite: EvalSuite, sample: Sample, result: Result) -> list[float]:
        """Of a sample of prompts: the score of each, 0 to 1, which `ropewalk compare` pairs; empty
        where losses are all that counts."""
        return []

    def verdicts(self, comparison: Comparison) -> list[Verdict]:
        """Values beside their tolerances, none without a rule; called when both columns have
        rows."""
        return []

    def figure(self, rows: ModelRows, window: int | None) -> str | None:
        """Inline SVG or HTML; None without rows, or where a table is all. `window`: the base's,
        tokens."""
        return None

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        """One sentence under the figure, computed from the same rows; None where they give none."""
        return None


def samples_of(task: Task, suite: EvalSuite) -> Sequence[Sample]:
    """The samples of a task, made once for a suite. Raises: DataError."""
    return suite.once(f"samples of {task.name}", lambda: task.samples(suite))


def difference(row: Mapping[str, Any]) -> Estimate:
    """The paired difference of a row to the base, or to its reference."""
    value, low, high = (row[key] for key in PAIRED)
    return Estimate(value, low, high, row["n"])
