"""Verdicts of the tasks on rows by hand: both sides of each tolerance, and in between."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ropewalk.conf.eval import EvalConfig
from ropewalk.eval.measure import statistics
from ropewalk.eval.measure import suite as suites
from ropewalk.eval.requests import Text
from ropewalk.eval.tasks import context_gain
from ropewalk.eval.tasks.context_gain import ContextGain, reference_context
from ropewalk.eval.tasks.passkey import PasskeyRetrieval
from ropewalk.eval.tasks.position import LossByPosition
from ropewalk.eval.tasks.short_context import ShortContext
from ropewalk.eval.tasks.task import ColumnFacts, Comparison, Measured, Sample
from ropewalk.eval.tasks.window_loss import WindowLoss


def row(**values: Any) -> dict[str, Any]:
    """An interval of 0.02 nats around each value, over 16 documents."""
    spread = {
        f"{key}{end}": value + side * 0.01
        for key, value in values.items()
        for end, side in (("_low", -1), ("", 0), ("_high", 1))
    }
    return {**spread, "n": 16, "unit": "document", "tolerance": 0.05}


def compared(rows: dict[str, Any], judged: str = "extended", reference: str = "base") -> Comparison:
    return Comparison(judged, reference, rows, window=4, length=12)


def window_gates(rise: float, rescaled: float, inside: float) -> dict[str | None, str]:
    rows = {
        "base": [row(), row(rise=rise)],
        "rescaled": [row(difference=9.0), row(difference=rescaled, rise=0.0)],
        "extended": [row(difference=inside), row(difference=-1.0, rise=0.0)],
    }
    verdicts = WindowLoss().verdicts(compared(rows))
    assert [v.question for v in verdicts] == [None, None, 5]
    return {v.name: v.answer() for v in verdicts}


@pytest.mark.parametrize(
    ("rise", "answer"), [(1.011, "pass"), (1.009, "undecided"), (0.989, "fail")]
)
def test_the_base_must_rise_by_one_nat_past_its_window(rise: float, answer: str) -> None:
    assert window_gates(rise, -1, 0)["Base past its window"] == answer


@pytest.mark.parametrize(
    ("change", "answer"), [(-0.011, "pass"), (-0.009, "undecided"), (0.011, "fail")]
)
def test_rescaling_alone_must_lower_the_loss_past_the_window(change: float, answer: str) -> None:
    assert window_gates(2, change, 0)["Rescaled only, past the window"] == answer


@pytest.mark.parametrize(
    ("change", "answer"), [(0.039, "pass"), (-1.0, "pass"), (0.05, "undecided"), (0.061, "fail")]
)
def test_the_extended_model_may_lose_a_twentieth_inside(change: float, answer: str) -> None:
    assert window_gates(2, -1, change)["Inside the original window"] == answer


def test_the_loss_inside_and_past_the_window_by_hand() -> None:
    """Two windows of six tokens, base's window 3: two losses inside, three past."""
    base = [np.array([1.0, 2.0, 4.0, 5.0, 6.0]), np.array([2.0, 3.0, 5.0, 6.0, 7.0])]
    ours = [losses - 0.5 for losses in base]
    names = ["a", "b"]
    config = EvalConfig()
    suite: Any = SimpleNamespace(
        base_window=3, length=6, config=config, draws=statistics.resamples(names, 0)
    )
    samples = [Sample(n, n, Text(np.arange(6))) for n in names]
    inside, past = WindowLoss().rows(Measured(suite, samples, ours, base))
    spans = [(part["from"], part["to"], part["tokens"], part["nll"]) for part in (inside, past)]
    assert spans == [(0, 3, 4, 1.5), (3, 6, 6, 5.0)]
    assert inside["difference"] == inside["difference_low"] == past["difference_high"] == -0.5
    assert past["rise"] == 3.5 and past["n"] == 2


@pytest.mark.parametrize(
    ("low", "high", "answer"),
    [(-0.2, -0.001, "pass"), (-0.2, 0.001, "undecided"), (0.001, 0.2, "fail")],
)
def test_the_interval_of_the_gain_must_lie_below_zero(low: float, high: float, answer: str) -> None:
    longest = {"context": 12, "difference": (low + high) / 2, "n": 16, "unit": "document"}
    longest |= {"difference_low": low, "difference_high": high}
    (check,) = ContextGain().verdicts(compared({"base": [], "extended": [{}, longest]}))
    assert (check.estimate[1:3], check.answer(), check.question) == ((low, high), answer, 1)
    assert "12 tokens of context against 4:" in check.rule
    assert check.text == f"{(low + high) / 2:+.3f} nats [{low:+.3f}, {high:+.3f}]"


@pytest.mark.parametrize(
    ("accuracies", "answer"),
    [((1.0, 0.9), "pass"), ((0.9, 0.7), "undecided"), ((0.6, 0.5), "fail")],
)
def test_passkey_is_judged_by_the_mean_over_depths_at_the_full_length(
    accuracies: tuple[float, float], answer: str
) -> None:
    rows = [{"length": 12, "depth": d, "accuracy": a, "n": 20} for d, a in enumerate(accuracies)]
    shorter = {"length": 4, "depth": 0, "accuracy": 0.0, "n": 20}
    (check,) = PasskeyRetrieval().verdicts(compared({"extended": [shorter, *rows]}))
    assert check.estimate.value == pytest.approx(sum(accuracies) / 2)
    assert check.answer() == answer and check.estimate.n == 40
    assert PasskeyRetrieval().verdicts(compared({"extended": [shorter]})) == []


@pytest.mark.parametrize(
    ("judged", "reference", "names"),
    [
        ("b", "a", {"a past its window": 2, "Inside the original window": -1}),
        ("b", "extended", {"extended past its window": 3, "Inside the original window": -1}),
        (
            "extended",
            "a",
            {
                "a past its window": 2,
                "Rescaled only, past the window": 5,
                "Inside the original window": -2,
            },
        ),
    ],
)
def test_verdicts_are_about_the_judged_column_against_the_reference(
    judged: str, reference: str, names: dict[str, float]
) -> None:
    """Rows of columns that nobody asked about change nothing; rescaled has a statement where its
    difference is paired."""
    rows = {
        "a": [row(difference=-9.0), row(rise=2)],
        "b": [row(difference=-1), row(rise=4)],
        "rescaled": [row(difference=0), row(difference=5) if judged == "extended" else row()],
        "extended": [row(difference=-2), row(rise=3)],
    }
    verdicts = WindowLoss().verdicts(compared(rows, judged, reference))
    assert {v.name: v.estimate.value for v in verdicts} == names
    assert verdicts[-1].rule == f"{judged} against {reference}: at most +0.05"
    assert all(f"against {reference} at" in v.rule for v in verdicts if "Rescaled" in v.name)


def test_only_tasks_that_both_columns_have_are_judged() -> None:
    columns = {"a": ColumnFacts(4), "b": ColumnFacts(12)}
    suite: Any = SimpleNamespace(base_window=4, length=12, config=EvalConfig(), columns=columns)
    loss = [row(difference=-1.0), row(rise=2)]
    models = {"a": {"window_loss": loss}, "b": {"window_loss": loss, "passkey": [{}]}}
    gates = suites.gates(models, suite, "a", "b")
    assert [gate["name"] for gate in gates] == ["a past its window", "Inside the original window"]
    assert suites.gates({"a": {}, "b": models["b"]}, suite, "a", "b") == []


@pytest.mark.parametrize(
    ("window", "length", "shown", "deciding"),
    [
        (12, 12, {None, 1, 5}, {1, 5}),  # made for more than the reference
        (4, 12, {None, 1, 5}, {5}),  # a copy: what it does past the window refuses nothing
        (4, 4, {5}, {5}),
        (12, 3, {5}, {5}),
    ],
)
def test_what_decides_is_what_the_judged_model_is_made_for(
    window: int, length: int, shown: set[int | None], deciding: set[int]
) -> None:
    columns = {"a": ColumnFacts(4), "b": ColumnFacts(window)}
    suite: Any = SimpleNamespace(base_window=4, length=length, config=EvalConfig(), columns=columns)
    past = [row(difference=-1.0), row(rise=2)][: 1 + (length > 4)]
    gain = [{**row(difference=-1.0), "context": length}]
    model = {"window_loss": past, "context_gain": gain, "passkey": [passkey_cell(length)]}
    gates = suites.gates({"a": model, "b": model}, suite, "a", "b")
    assert {gate["question"] for gate in gates} - {3} == shown
    assert (3 in {gate["question"] for gate in gates}) is (length > 4)
    assert {gate["question"] for gate in gates if gate["decides"]} == deciding


def passkey_cell(length: int) -> dict[str, Any]:
    return {"length": length, "depth": 0.5, "accuracy": 1.0, "n": 20}


def test_differences_are_taken_to_the_context_whose_own_difference_is_zero() -> None:
    def row(context: int, difference: float) -> dict[str, Any]:
        keys = ("difference", "difference_low", "difference_high")
        return {"context": context, **dict.fromkeys(keys, difference)}

    assert reference_context({"base": [row(8192, -0.1), row(4096, 0)]}, 512) == 4096
    assert reference_context({"base": [row(8192, -0.1)]}, 512) == 512


def test_the_axis_of_contexts_has_small_margins_around_the_points(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits: list[tuple[float, float]] = []
    monkeypatch.setattr(context_gain, "loss_figure", lambda _, __, x, **___: limits.append(x))
    points = [{"context": n, "nll": 1.0, "low": 1.0, "high": 1.0} for n in (4096, 16384)]
    ContextGain().figure({"base": points}, None)
    ((low, high),) = limits
    assert 3584 < low < 4096 and 16384 < high < 18432


def test_a_window_is_scored_in_sixteen_bins() -> None:
    suite = SimpleNamespace(length=64, draws=statistics.resamples(["a", "b"], 0))
    measured: Any = SimpleNamespace(suite=suite, losses=np.ones((2, 63)), of_base=None)
    rows = LossByPosition().rows(measured)
    assert [(row["from"], row["to"]) for row in rows] == [(n, n + 4) for n in range(0, 64, 4)]


def test_the_readings_name_each_column_that_is_paired_with_the_reference() -> None:
    inside = {"to": 256, "n": 16}
    rows = {
        "a": [inside],
        "b": [{**inside, **row(difference=-0.25)}],
        "c": [{**inside, **row(difference=0.5)}],
    }
    expected = "\u22120.250 [\u22120.260 to \u22120.240] (b) and +0.500 [+0.490 to +0.510] (c) nats"
    assert WindowLoss().reading(rows, 256) == (
        f"Inside the window of 256 tokens the loss differs from the reference's by {expected}."
    )
    assert ShortContext().reading(rows, 256) == (
        f"On 16 short documents the loss differs from the reference's by {expected} per token."
    )
    assert WindowLoss().reading({"a": [inside]}, 256) is None
