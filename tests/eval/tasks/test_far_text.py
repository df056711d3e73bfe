"""Swapped text, far copies and LongPPL against brute force and plain loops of transformers."""

import math
from collections.abc import Sequence
from typing import Any

import language_suites
import models
import numpy as np
import pytest
from language_suites import token_losses

from ropewalk.conf.errors import ConfigError
from ropewalk.data.dataset import BoundaryTokens, Window
from ropewalk.eval.tasks import far_copy, longppl, swapped_gain
from ropewalk.eval.tasks.far_copy import FarCopy
from ropewalk.eval.tasks.longppl import LongPpl
from ropewalk.eval.tasks.swapped_gain import SwappedGain
from ropewalk.eval.tasks.task import ColumnFacts

LENGTH, BASE_WINDOW = 48, 16


@pytest.fixture(scope="module")
def two() -> dict[str, Any]:
    """Two models of other weights."""
    return {
        name: models.tiny_model(seed, attn_implementation="sdpa").eval()
        for seed, name in enumerate(("base", "extended"))
    }


def windows() -> list[Window]:
    """Random tokens, many of them copies, of two sources: two windows of document 0, and three
    documents with one."""
    rng = np.random.default_rng(3)
    texts = []
    for number in range(5):
        ids = rng.integers(0, 12, LENGTH)
        ids[30:40] = ids[5:15]
        texts.append(Window(str(number % 4), ids, f"s{number % 2}"))
    return texts


def inputs(**changes: Any) -> Any:
    columns = {"base": ColumnFacts(BASE_WINDOW), "extended": ColumnFacts(LENGTH)}
    settings = {"columns": columns, "windows": windows(), **changes}
    return language_suites.suite([], LENGTH, BASE_WINDOW, **settings)


def test_the_text_before_the_seam_is_another_documents(two: dict[str, Any]) -> None:
    """The oracle puts the swapped text together token by token and runs transformers on it."""
    suite, seam = inputs(), LENGTH - BASE_WINDOW
    rows = language_suites.rows(SwappedGain(), suite, two)
    texts, gains = suite.windows, {}
    for label, model in two.items():
        gains[label] = []
        for number, window in enumerate(texts):
            # the next of the same source and another document, in a circle
            donor = number
            while True:
                donor = (donor + 1) % len(texts)
                other = texts[donor]
                if other.source == window.source and other.document != window.document:
                    break
            mixed = [int(t) for t in other.ids[:seam]] + [int(t) for t in window.ids[seam:]]
            true, swapped = token_losses(model, window.ids), token_losses(model, mixed)
            gains[label].append([swapped[n - 1] - true[n - 1] for n in range(seam, LENGTH)])
    for label in two:
        for row in rows[label]:
            part = slice(row["from"], row["to"])
            expected = np.mean([gain[part] for gain in gains[label]])
            assert row["gain"] == pytest.approx(expected, abs=1e-4)
            base = np.mean([gain[part] for gain in gains["base"]])
            change = row.get("difference", 0.0)
            assert change == pytest.approx(expected - base, abs=1e-4)
    ends = [(row["from"], row["to"]) for row in rows["base"]]
    assert ends == [(0, 2), (2, 4), (4, 8), (8, 16), (0, 16)]
    assert {row["n"] for row in rows["base"]} == {4} and "difference" not in rows["base"][0]


def test_a_window_without_a_second_document_of_its_source_is_counted_as_left_out(
    two: dict[str, Any],
) -> None:
    texts = [*windows()[:3], Window("alone", windows()[0].ids, "other")]
    rows = language_suites.rows(SwappedGain(), inputs(windows=texts), {"base": two["base"]})["base"]
    assert {row["windows_without_donor"] for row in rows} == {2}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"windows": windows()[:2]}, "no source has windows of two held-out documents"),
        ({"windows": [Window("a", w.ids, w.source) for w in windows()]}, "no source has windows"),
    ],
)
def test_without_a_second_document_nothing_is_measurable(
    two: dict[str, Any], changes: Any, reason: str
) -> None:
    (row,) = language_suites.rows(SwappedGain(), inputs(**changes), {"base": two["base"]})["base"]
    assert row["gain"] is None and row["n"] == 0 and row["reason"].startswith(reason)


def test_without_text_before_the_kept_tokens_nothing_is_measurable(two: dict[str, Any]) -> None:
    for marks, kept in ((BoundaryTokens(), LENGTH), (BoundaryTokens(1), LENGTH - 1)):
        suite = inputs(marks=marks)
        suite.config.swapped_gain.kept_tokens = kept
        (row,) = language_suites.rows(SwappedGain(), suite, {"base": two["base"]})["base"]
        assert row["gain"] is None and row["reason"].startswith("nothing stands before the last")
    assert swapped_gain.bins(3) == [(0, 1), (1, 3)]


def brute_force_copies(ids: Sequence[int], k: int) -> list[int]:
    """For each token, every earlier place, the nearest first: O(tokens squared)."""
    found = []
    for place in range(len(ids)):
        distance = 0
        for earlier in range(place - 1, k - 1, -1):
            if place >= k and all(ids[earlier - n] == ids[place - n] for n in range(1, k + 1)):
                distance = place - earlier if ids[earlier] == ids[place] else 0
                break
        found.append(distance)
    return found


@pytest.mark.parametrize("k", [1, 2, 4, 8])
def test_copies_are_those_of_brute_force(k: int) -> None:
    rng = np.random.default_rng(k)
    for words in (2, 4, 30):
        ids = rng.integers(0, words, 300)
        ids[200:260] = ids[40:100]
        expected = brute_force_copies(ids.tolist(), k)
        assert far_copy.copy_distances(ids, k).tolist() == expected
        assert any(expected) and not all(expected)


def test_the_loss_of_copies_is_binned_by_their_distance(two: dict[str, Any]) -> None:
    suite = inputs()
    suite.config.far_copy.k = 2
    rows = language_suites.rows(FarCopy(), suite, two)
    for label, model in two.items():
        losses = [token_losses(model, window.ids) for window in suite.windows]
        for row in rows[label]:
            values = [
                losses[n][place - 1]
                for n, window in enumerate(suite.windows)
                for place, distance in enumerate(brute_force_copies(window.ids.tolist(), 2))
                if row["from"] < distance <= row["to"]
            ]
            assert row.get("tokens", 0) == len(values)
            if values:
                assert row["nll"] == pytest.approx(np.mean(values), abs=1e-4)
            else:
                assert row["nll"] is None and "no token is copied" in row["reason"]
    kinds = [(row["from"], row["to"], row["kind"]) for row in rows["base"]]
    assert kinds == [(0, 4, "near"), (4, 16, "near"), (16, 32, "far"), (32, 48, "far")]
    tokens = [[row.get("tokens") for row in rows[label]] for label in two]
    assert tokens[0] == tokens[1]  # the set is the same for every column


def key_tokens(
    model: Any, ids: np.ndarray, context: int, block: int, gain: float, bar: float
) -> list[int]:
    """LongPPL's loop: blocks of targets, each pass with the short context before its block."""
    full, keys = token_losses(model, ids), []
    for start in range(0, len(ids) - context, block):
        part = ids[start : start + context + block]
        short = token_losses(model, part)
        for place in range(context, len(part)):
            target = start + place
            if short[place - 1] - full[target - 1] > gain and full[target - 1] < bar:
                keys.append(target)
    return keys


def test_longppl_takes_the_evaluators_key_tokens_for_every_column(two: dict[str, Any]) -> None:
    suite = inputs()
    settings = suite.config.longppl
    settings.gain, settings.loss, settings.min_key_tokens, settings.block = 0.2, 5.0, 5, 6
    rows = language_suites.rows(LongPpl(), suite, two)
    keys = [key_tokens(two["extended"], w.ids, BASE_WINDOW, 6, 0.2, 5.0) for w in suite.windows]
    assert 5 <= sum(map(len, keys)) < 5 * (LENGTH - BASE_WINDOW) / 2
    for label, model in two.items():
        (row,) = rows[label]
        losses = [
            token_losses(model, window.ids)[place - 1]
            for window, part in zip(suite.windows, keys, strict=True)
            for place in part
        ]
        assert row["longppl"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
        assert row["keys"] == keys and row["key_tokens"] == len(losses)
        assert row["evaluator"] == "extended" and row["n"] == 4  # documents
    assert rows["base"][0]["key_set"] == rows["extended"][0]["key_set"]
    asked = [sample.columns for sample in LongPpl().samples(suite)]
    assert asked.count(()) == 5 and set(asked) == {(), ("extended",)}


def test_few_key_tokens_are_not_measurable(two: dict[str, Any]) -> None:
    suite = inputs()
    suite.config.longppl.gain = 50.0
    rows = language_suites.rows(LongPpl(), suite, two)
    for (row,) in rows.values():
        assert row["longppl"] is None and row["key_tokens"] == 0
        assert row["reason"].startswith("extended finds 0 key tokens")


def test_an_evaluator_with_a_shorter_window_than_the_text_is_refused() -> None:
    suite = inputs()
    suite.config.longppl.evaluator = "base"
    with pytest.raises(ConfigError, match="evaluator is base; its window of 16 tokens must hold"):
        LongPpl().samples(suite)
    other = inputs(columns={"other": ColumnFacts(BASE_WINDOW)})
    text = longppl.reason_against(other)
    assert text is not None and text.startswith("the evaluator is other; its window of 16")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"evaluator": "nobody"}, "nobody is not among"), ({"short_context": 48}, "is not longer")],
)
def test_what_cannot_be_measured_has_a_reason(settings: Any, reason: str) -> None:
    suite = inputs()
    for key, value in settings.items():
        setattr(suite.config.longppl, key, value)
    text = longppl.reason_against(suite)
    assert text is not None and reason in text
    assert len(LongPpl().samples(suite)) == 5
