"""What tasks say of their rows, which columns and contexts they take, by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.eval import EvalConfig
from ropewalk.eval.tasks import context_gain, far_copy, haystacks, longppl, sliding_windows
from ropewalk.eval.tasks.far_copy import FarCopy
from ropewalk.eval.tasks.longppl import LongPpl
from ropewalk.eval.tasks.passkey import PasskeyRetrieval
from ropewalk.eval.tasks.position import LossByPosition, _mean_text
from ropewalk.eval.tasks.sliding_windows import Span
from ropewalk.eval.tasks.task import ColumnFacts, Comparison, EvalSuite
from ropewalk.eval.tasks.window_loss import WindowLoss


def cell(length: int, hits: int, n: int = 10) -> dict[str, Any]:
    return {"length": length, "accuracy": hits / n, "n": n}


def test_keys_are_counted_up_to_the_window_and_beyond() -> None:
    cells = [cell(512, 9), cell(1024, 7), cell(1025, 3), cell(4096, 1)]
    text = PasskeyRetrieval().reading({"base": cells}, 1024)
    assert text is not None
    assert text.startswith("Beyond 1,024 tokens the keys found are 4 of 20 (base)")
    assert "up to 1,024 tokens, 16 of 20 (base)" in text
    assert PasskeyRetrieval().reading({"base": cells}, None) is None
    inside = PasskeyRetrieval().reading({"base": cells[:2]}, 1024)
    assert inside is not None and "eyond" not in inside


def test_keys_at_the_full_length_are_judged_over_all_depths() -> None:
    rows = {"judged": [cell(64, 10), cell(128, 9), cell(128, 6)], "base": []}
    (verdict,) = PasskeyRetrieval().verdicts(Comparison("judged", "base", rows, 64, 128))
    assert (verdict.estimate.value, verdict.estimate.n) == (0.75, 20)
    assert (verdict.tolerance, verdict.better, verdict.question) == (0.8, "above", 3)
    assert PasskeyRetrieval().verdicts(Comparison("judged", "base", rows, 64, 256)) == []


def test_far_copies_have_the_mean_of_their_tokens() -> None:
    rows = [
        {"kind": "near", "nll": 1.0, "tokens": 10},
        {"kind": "far", "nll": 2.0, "tokens": 10},
        {"kind": "far", "nll": 3.0, "tokens": 30},
        {"kind": "far", "nll": None, "tokens": 0},
    ]
    text = FarCopy().reading({"base": rows}, 64)
    assert text is not None and "back is 2.750 (base)" in text and "near, 1.000 (base)" in text
    assert far_copy._text(rows[-1:], "far") is None


def suite(length: int = 64, window: int = 16, **settings: Any) -> EvalSuite:
    def encode(text: str) -> np.ndarray:
        return np.array([])

    config = EvalConfig()
    for key, value in settings.items():
        section, _, name = key.partition("__")
        setattr(getattr(config, section), name, value)
    columns = {"base": ColumnFacts(16), "extended": ColumnFacts(64)}
    return EvalSuite(config, window, length, [], [], encode, 0, columns=columns)


@pytest.mark.parametrize(
    ("far", "length", "bins"),
    [
        (None, 64, [(0, 4), (4, 16), (16, 32), (32, 64)]),
        (None, 50, [(0, 4), (4, 16), (16, 32), (32, 50)]),
        (3, 8, [(0, 3), (3, 6), (6, 8)]),
        (4, 8, [(0, 1), (1, 4), (4, 8)]),
    ],
)
def test_distances_of_copies_double_from_far_on(far: int | None, length: int, bins: Any) -> None:
    assert far_copy.bins(suite(length, far_copy__far=far)) == bins


def test_key_tokens_are_chosen_by_the_column_that_holds_the_text() -> None:
    assert longppl.evaluator(suite()) == "extended" and longppl.reason_against(suite()) is None
    assert longppl.short_context(suite()) == 16 and longppl.block(suite()) == 4
    assert longppl.short_context(suite(window=9000)) == 4096
    set_to = suite(longppl__short_context=3, longppl__block=None)
    assert (longppl.short_context(set_to), longppl.block(set_to)) == (3, 1)
    reason = longppl.reason_against(suite(length=65))
    assert reason is not None and "its window of 64 tokens must hold the text of 65" in reason
    short = longppl.reason_against(suite(length=16))
    assert short is not None and "16 tokens is not longer than the short context of 16" in short
    assert longppl.reason_against(suite(length=17)) is None
    with pytest.raises(ConfigError, match="evaluator is base; its window of 16 tokens"):
        longppl.reason_against(suite(longppl__evaluator="base"))
    absent = longppl.reason_against(suite(longppl__evaluator="other"))
    assert absent is not None and "other is not among the columns" in absent


def test_longppl_is_told_with_who_chose() -> None:
    row = {"longppl": 7.5, "key_tokens": 1200, "evaluator": "extended"}
    text = LongPpl().reading({"base": [row], "extended": [row | {"longppl": None}]}, 64)
    assert text is not None and "on 1,200 key tokens the perplexity is 7.5" in text.lower()
    assert "extended chose them" in text and LongPpl().reading({}, 64) is None
    assert LongPpl().reading({"base": [{"longppl": None, "reason": "x"}]}, 64) is None


def test_windows_slide_by_a_stride_and_end_with_the_text() -> None:
    def spans(tokens: int, window: int, stride: int) -> list[Span]:
        return list(sliding_windows.sliding_spans(tokens, window, stride))

    assert spans(10, 4, 3) == [Span(0, 4, 4), Span(3, 7, 3), Span(6, 10, 3)]
    assert spans(11, 4, 3) == [Span(0, 4, 4), Span(3, 7, 3), Span(6, 10, 3), Span(9, 11, 1)]
    assert spans(4, 4, 3) == [Span(0, 4, 4)] and spans(3, 4, 3) == [Span(0, 3, 3)]
    strides = {window: sliding_windows.default_stride(window) for window in (3, 16, 1023, 1024)}
    assert strides == {3: 1, 16: 4, 1023: 255, 1024: 256}
    assert sliding_windows.default_stride(4096) == 256
    assert sliding_windows._window(np.arange(5), 5).first == 1
    assert sliding_windows._window(np.arange(5), 2).first == 3


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (-2.0, -1.0, "lower"),
        (1.0, 2.0, "higher"),
        (-1.0, 1.0, "not shown"),
        (0.0, 1.0, "not shown"),
    ],
)
def test_a_change_is_shown_where_its_interval_leaves_out_zero(
    low: float, high: float, word: str
) -> None:
    assert context_gain._direction(low, high).startswith(word)
    assert context_gain._direction(-1.0, 0.0).startswith("not shown")


def test_the_longest_context_is_told_against_the_one_without_a_difference() -> None:
    def row(context: int, change: float | None) -> dict[str, Any]:
        ends = {
            "difference_low": change and change - 0.1,
            "difference_high": change and change + 0.1,
        }
        return {"context": context, "difference": change, **ends}

    points = [row(64, 0), row(256, -0.5), row(128, -0.2)]
    task = context_gain.ContextGain()
    text = task.reading({"extended": points, "base": points[:1]}, None)
    assert text is not None and text.startswith("Given 256 tokens of context instead of 64, the")
    assert "extended model's" in text and text.endswith("lower.")
    assert task.reading({"extended": points[:1]}, None) is None
    assert task.reading({"extended": [row(64, 0), row(256, None)]}, None) is None
    assert context_gain.reference_context({"extended": [row(256, -0.5)]}, 77) == 77


def test_the_difference_inside_the_window_is_told() -> None:
    inside = {"difference": -0.25, "difference_low": -0.5, "difference_high": 0.125, "to": 1024}
    text = WindowLoss().reading({"base": [{"to": 9}], "extended": [inside]}, 64)
    assert text is not None and "window of 1,024 tokens the loss differs" in text
    assert "\u22120.250 [\u22120.500 to +0.125] (extended) nats" in text
    assert WindowLoss().reading({"base": [{"to": 9}]}, 64) is None


def test_means_of_bins_and_a_few_lengths() -> None:
    bins = [
        {"from": 0, "to": 4, "tokens": 3, "nll": 2.0},
        {"from": 4, "to": 8, "tokens": 9, "nll": 1.0},
    ]
    assert _mean_text(bins, 0, 8) == "1.250" and _mean_text(bins, 4, 8) == "1.000"
    assert _mean_text(bins, 5, 8) is None
    assert haystacks.few([4, 1, 1, 2]) == [1, 2, 4]
    assert haystacks.few(range(10)) == [0, 3, 6, 9] and haystacks.few(range(5), 3) == [0, 2, 4]
    facts = [
        SimpleNamespace(facts={"pairs": p, "fill": f, "length": 100}, request=None)
        for p, f in ((2, 50), (3, 75))
    ]
    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patch:
        patch.setattr(haystacks, "prompt_hash", lambda _: "h")
        row = haystacks.prompt_facts(facts)  # type: ignore[arg-type]
    assert (row["pairs"], row["fill"], row["prompt_hash"]) == (2.5, 0.625, "h")


def test_the_curve_by_position_begins_within_the_first_bin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At half of its end, as an axis of logarithms has no 0; then a step over each bin."""
    drawn: dict[str, Any] = {}

    def figure(curves: Any, window: int, ends: tuple[float, float], **_: Any) -> str:
        drawn.update(curves=curves, ends=ends)
        return ""

    monkeypatch.setattr("ropewalk.eval.tasks.position.loss_figure", figure)
    bins = [{"from": 0, "to": 64}, {"from": 64, "to": 200}, {"from": 200, "to": 512}]
    LossByPosition().figure({"base": bins}, 128)
    assert drawn["ends"] == (32, 512)
    edges, rows = drawn["curves"]["base"]
    assert edges.tolist() == [32, 64, 64, 200, 200, 512]
    assert rows == [row for row in bins for _ in ("from", "to")]
