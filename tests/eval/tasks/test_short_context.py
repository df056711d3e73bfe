"""Loss on short documents: which texts are read, rows by hand, and models of known loss."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ropewalk.conf.eval import EvalConfig
from ropewalk.conf.eval_gates import GatesConfig
from ropewalk.conf.eval_short_context import ShortContextConfig
from ropewalk.data.dataset import BoundaryTokens, Window
from ropewalk.eval.measure.gates import judge
from ropewalk.eval.requests import Text
from ropewalk.eval.tasks import short_context
from ropewalk.eval.tasks.short_context import ShortContext, texts
from ropewalk.eval.tasks.task import Comparison, Measured, Sample

WINDOW = 32


def suite(lengths: list[int], documents: int = 96) -> Any:
    windows = [Window(f"{k}", np.arange(n, dtype=np.uint16) + 5) for k, n in enumerate(lengths)]
    config = EvalConfig(
        short_context=ShortContextConfig(documents=documents), gates=GatesConfig(short_nats=0.02)
    )
    marks = BoundaryTokens(begin=1, end=2)
    return SimpleNamespace(
        documents=windows, base_window=WINDOW, config=config, boundary_tokens=marks, seed=0
    )


def test_the_texts_are_the_first_tokens_of_documents_at_three_lengths() -> None:
    """The window, half and a quarter of it; a shorter document is whole, with its end token."""
    found = [ids.tolist() for _, ids in texts(suite([100, 100, 100, 20, 7, 100], documents=5))]
    assert [len(ids) for ids in found] == [32, 16, 8, 22, 16]
    assert found[0] == [1, *range(5, 36)] and found[1] == [1, *range(5, 20)]
    assert found[3] == [1, *range(5, 25), 2]
    assert all(ids.dtype == np.int64 for _, ids in texts(suite([100])))


def test_bins_count_the_tokens_that_a_document_has_there() -> None:
    own = suite([100, 100])
    samples = ShortContext().samples(own)
    base = [np.arange(31.0), np.arange(15.0)]
    measured = Measured(own, samples, [base[0] + 1, base[1] + 2], base)
    whole, *bins = ShortContext().rows(measured)
    assert [(row["from"], row["to"], row["tokens"], row["n"]) for row in bins] == [
        (0, 2, 2, 2),
        (2, 8, 12, 2),
        (8, 16, 16, 2),
        (16, 32, 16, 1),
    ]
    assert whole["tokens"] == 46 and whole["difference"] == pytest.approx((31 + 30) / 46)
    assert bins[3]["difference"] == 1 and bins[3]["difference_low"] is None
    assert bins[2]["nll"] == pytest.approx(np.arange(7, 15).mean() + 1.5)


def answer(loss: float, documents: int, spread: float = 0.02) -> dict[str, Any]:
    """The gate of a model that loses `loss` nats a token in the mean."""
    own = suite([100] * documents)
    samples = ShortContext().samples(own)
    rng = np.random.Generator(np.random.PCG64(1))
    base, ours = [], []
    for sample in samples:
        assert isinstance(sample.request, Text)
        base.append(rng.normal(3, 1, sample.request.tokens - 1))
        ours.append(base[-1] + loss + (rng.normal(0, spread) if spread else 0))
    rows = ShortContext().rows(Measured(own, samples, ours, base))
    verdicts = ShortContext().verdicts(Comparison("b", "a", {"a": [], "b": rows}, WINDOW, 64))
    (gate,) = judge(verdicts, [5])
    return gate


def test_an_untouched_copy_passes_and_a_worse_model_fails_and_few_are_undecided() -> None:
    same = answer(0.0, 12, spread=0)
    assert (same["verdict"], same["value"], same["high"]) == ("pass", 0, 0)
    assert answer(0.5, 12)["verdict"] == "fail"
    few = answer(0.0, 8, spread=0.2)
    assert few["verdict"] == "undecided" and few["needed_n"] > 8
    assert answer(0.0, 7, spread=0)["verdict"] == "undecided"
    assert (few["question"], few["decides"], few["unit"]) == (5, True, "document")


def test_without_a_document_the_row_says_why() -> None:
    (row,) = ShortContext().rows(Measured(suite([7]), [], []))
    assert row["nll"] is None and "no held-out document has 8 tokens" in row["reason"]
    assert ShortContext().verdicts(Comparison("b", "a", {"b": [row]}, WINDOW, 64)) == []


@pytest.mark.parametrize(
    ("window", "bins"),
    [(64, [(0, 4), (4, 16), (16, 32), (32, 64)]), (16, [(0, 4), (4, 8), (8, 16)]), (2, [(0, 2)])],
)
def test_bins_end_at_a_sixteenth_a_quarter_a_half_and_the_window(
    window: int, bins: list[tuple[int, int]]
) -> None:
    """The first token has no loss, so a bin of it alone is left out."""
    own = suite([100])
    own.base_window = window
    sample = Sample("a", "a", Text(np.arange(window)))
    whole, *parts = short_context._loss_rows(Measured(own, [sample], [np.ones(window - 1)]))
    assert [(row["from"], row["to"]) for row in parts] == bins
    assert (whole["part"], whole["tokens"]) == ("all", window - 1)
    assert sum(row["tokens"] for row in parts) == window - 1


def test_a_document_of_a_quarter_of_the_window_is_the_shortest_that_is_read() -> None:
    assert [origin.strip() for origin, _ in texts(suite([7, 8, 9]))] == ["1", "2"]
    tiny = suite([1, 2, 3])
    tiny.base_window = 4
    assert [origin.strip() for origin, _ in texts(tiny)] == ["1", "2"]
