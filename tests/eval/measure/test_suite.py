"""Inputs of a column with another tokenizer, and how results are paired; stand-ins for the data."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import ruler_suite
from changed_settings import GOOD

from ropewalk.conf.errors import DataError
from ropewalk.data.dataset import BoundaryTokens
from ropewalk.eval.measure import suite as suites
from ropewalk.eval.requests import Text
from ropewalk.eval.tasks.task import Measured, Sample
from ropewalk.launch.config.compose import compose

PLAN: Any = SimpleNamespace(base_window=64, max_position_embeddings=256)


class Heldout:
    """Held-out text with these windows."""

    boundary_tokens = BoundaryTokens()

    def __init__(self, windows: list[Any]) -> None:
        self._windows = windows

    def windows(self, length: int, count: int, each: int) -> list[Any]:
        assert length == 256
        return self._windows

    def texts(self) -> list[Any]:
        return ["texts of", self._windows]

    def layout(self, windows: list[Any]) -> dict[str, Any]:
        return {}

    def documents(self) -> list[Any]:
        return []


class Change:
    """In place of `OtherTokenizer`; keeps only windows that are even."""

    def __init__(self, source: Any, target: Any, name: str) -> None:
        assert name == "eval.models.qwen" and source is not target

    def windows(self, windows: list[Any], *_: Any) -> list[Any]:
        return [window for window in windows if window % 2 == 0]

    def heldout(self, heldout: Heldout, marks: Any) -> Heldout:
        return Heldout(["under the other"])


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(suites, "OtherTokenizer", Change)
    monkeypatch.setattr(suites, "run_tokenizer", lambda *_: ruler_suite.demo_tokenizer())
    monkeypatch.setattr(suites, "boundary_tokens", lambda *_: BoundaryTokens(1, 2))

    def build(windows: list[Any], other: Any, *words: str) -> Any:
        config = compose([*GOOD, "model.path=organisation/model", "eval.length=256", *words])
        data: Any = SimpleNamespace(heldout_text=lambda _: Heldout(windows))
        return suites.build_suite(config, PLAN, data, other)

    return build


def column(changed: bool) -> Any:
    own = ruler_suite.demo_tokenizer()
    return SimpleNamespace(label="qwen", tokenizer=replace(own) if changed else None)


def test_only_a_column_with_a_tokenizer_of_its_own_reads_other_tokens(build: Any) -> None:
    for other in (None, column(False)):
        made = build([1, 2, 3], other)
        assert made.windows == [1, 2, 3] and made.fillers == ["texts of", [1, 2, 3]]
    made = build([1, 2, 3], column(True))
    assert made.windows == [2] and made.fillers == ["texts of", ["under the other"]]
    assert (made.base_window, made.length) == (64, 256)


def test_without_a_window_the_refusal_names_the_tokenizer(build: Any) -> None:
    with pytest.raises(DataError, match="that many tokens; raise data.heldout_share"):
        build([], None)
    for windows in ([], [1, 3]):
        with pytest.raises(DataError, match="tokens under the tokenizer of qwen; raise"):
            build(windows, column(True))


@pytest.mark.parametrize(
    ("words", "seed"),
    [([], 0), (["seed=4"], 4), (["seed=4", "eval.seed=7"], 7), (["seed=4", "eval.seed=0"], 0)],
)
def test_questions_are_drawn_by_eval_seed_or_else_by_the_run_s(
    build: Any, words: list[str], seed: int
) -> None:
    assert build([1], None, *words).seed == seed


def measured(label: str, *names: str) -> Measured:
    samples = [Sample(name, name, Text(np.arange(4))) for name in names]
    suite: Any = None
    return Measured(suite, samples, [np.array([len(name)]) for name in names], label=label)


def test_results_are_paired_by_the_samples_names() -> None:
    """In the column's order; none for the reference itself, nor where it lacks a sample."""
    base, own = measured("base", "a", "bb", "ccc"), measured("extended", "ccc", "a")
    assert suites.paired_results(own, base) == [np.array([3]), np.array([1])]
    assert suites.paired_results(own, None) is None
    assert suites.paired_results(base, measured("base", "a", "bb", "ccc")) is None
    assert suites.paired_results(measured("extended", "a", "d"), base) is None
