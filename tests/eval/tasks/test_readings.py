"""Sentences, curves and points of tasks from rows by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ropewalk.conf.eval import EvalConfig
from ropewalk.eval.tasks import short_context, swapped_gain, yarn_compat
from ropewalk.eval.tasks.json_kv import mean_reading
from ropewalk.eval.tasks.lm_eval_tasks import Item


def share(length: int, accuracy: float | None, **more: Any) -> dict[str, Any]:
    ends = {"low": 0.5, "high": 0.75} if accuracy else {"low": None, "high": None}
    return {"length": length, "n": 8 if accuracy else 0, "accuracy": accuracy, **ends, **more}


def test_shares_are_read_at_the_longest_length_and_at_the_window() -> None:
    rows = {
        "base": [share(1024, 0.6, depth=0.5), share(1024, 0.7), share(4096, None), share(512, 0.9)],
        "extended": [share(2048, 0.66), share(1024, 0.68), share(512, 0.9)],
    }
    reading = mean_reading(rows, 1024, "the answers are")
    assert reading is not None
    longest, window = reading.rstrip(".").split("; ")
    assert longest.lower().startswith("at 2,048 tokens the answers are")
    assert "66%, 50% to 75%" in longest and "base" not in longest  # which was not asked there
    assert window.startswith("at 1,024 tokens") and "512" not in reading
    assert "70%, 50% to 75%" in window and "68%" in window and "60%" not in reading
    no_ends = mean_reading({"base": [share(512, 0.9) | {"low": None}]}, None, "they are")
    assert no_ends is not None and "90%" in no_ends and " to " not in no_ends
    assert mean_reading({"base": [share(512, None)]}, 512, "they are") is None


def test_the_gain_of_all_distances_is_told_and_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(swapped_gain, "curve_figure", lambda rows, _: drawn.update(rows))
    parts = [{"to": to, "gain": to / 100, "low": None, "high": None} for to in (8, 16, 32, 32)]
    parts[-1] |= {"gain": 0.25, "low": -0.5, "high": 1.0}
    task = swapped_gain.SwappedGain()
    task.figure({"base": parts}, 64)
    assert drawn == {"base": parts[:-1]}
    reading = task.reading({"base": parts}, 64)
    assert reading is not None and "before the last 32 tokens" in reading
    assert "+0.250 nats [\u22120.500, +1.000]" in reading and "0.320" not in reading
    parts[-1]["low"] = None
    reading = task.reading({"base": parts}, 64)
    assert reading is not None and "+0.250 nats" in reading and "[" not in reading
    assert task.reading({"base": [{"to": 32, "gain": None}]}, 64) is None


def test_distances_from_the_seam_are_eighths_doubled() -> None:
    assert swapped_gain.bins(64) == [(0, 8), (8, 16), (16, 32), (32, 64)]
    assert swapped_gain.bins(3) == [(0, 1), (1, 3)] and swapped_gain.bins(1) == [(0, 1)]


def test_the_perplexity_of_yarns_longest_length_is_told() -> None:
    def row(mode: str, length: int, perplexity: float | None) -> dict[str, Any]:
        return {"mode": mode, "length": length, "window": length, "perplexity": perplexity}

    rows = {"base": [row("truncated", 64, 5.5), row("truncated", 256, 7.25), row("sliding", 9, 1)]}
    reading = yarn_compat.YarnCompat().reading(rows, 64)
    assert reading is not None and "over 256 tokens the perplexity is" in reading.lower()
    assert "7.25" in reading and "5.5" not in reading
    rows["base"][1]["perplexity"] = None
    assert yarn_compat.YarnCompat().reading(rows, 64) is None


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A row of a task of lm-eval whose items have these scores."""

    def items(measured: Any, task: str) -> dict[str, Item]:
        return {str(n): Item(str(n), "acc", value) for n, value in enumerate(measured.scores)}

    monkeypatch.setattr(short_context, "_items", items)
    monkeypatch.setattr(short_context, "version", lambda _: "0")
    suite = SimpleNamespace(config=EvalConfig(), base_window=64)

    def row(scores: list[float], base: list[float] | None = None) -> dict[str, Any]:
        of_base = None if base is None else SimpleNamespace(scores=base)
        measured: Any = SimpleNamespace(suite=suite, scores=scores, of_base=of_base)
        return short_context._task_row(measured, "words")

    return row


def test_scores_are_in_percent_and_their_differences_in_points(scored: Any) -> None:
    row = scored([1, 1, 1, 0, 1, 1, 1, 1], [0, 1, 0, 1, 1, 1, 1, 1])
    interval = stats.binomtest(7, 8).proportion_ci(method="wilson")
    assert (row["accuracy"], row["n"]) == (87.5, 8)
    assert [row["low"], row["high"]] == pytest.approx([100 * end for end in interval], abs=1e-4)
    assert row["difference"] == pytest.approx(12.5)  # two gained, one lost
    assert (row["lost"], row["gained"]) == (1, 2)
    assert row["mcnemar_p"] == pytest.approx(stats.binomtest(1, 3).pvalue)
    assert scored([0, 0, 0])["low"] == 0 and "difference" not in scored([0, 0, 0])


def test_scores_between_0_and_1_have_students_interval(scored: Any) -> None:
    scores = [0.25, 0.5, 0.75]
    half = stats.t.ppf(0.975, 2) * np.std(scores, ddof=1) / 3**0.5
    row = scored(scores, [0.25, 0.25, 0.25])
    assert [row["low"], row["high"]] == pytest.approx([100 * (0.5 - half), 100 * (0.5 + half)])
    assert row["difference"] == pytest.approx(25) and "lost" not in row
    one = scored([0.5])
    assert (one["accuracy"], one["low"], one["high"]) == (50, None, None)
