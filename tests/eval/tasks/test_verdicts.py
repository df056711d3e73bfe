"""Verdicts of the tasks on rows by hand: the number, the bar and both sides of it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ropewalk.eval.measure import statistics
from ropewalk.eval.measure import suite as suites
from ropewalk.eval.tasks import context_gain
from ropewalk.eval.tasks.context_gain import ContextGain, reference_context
from ropewalk.eval.tasks.passkey import PasskeyRetrieval
from ropewalk.eval.tasks.position import LossByPosition


def bins(inside: float, beyond: float) -> list[dict[str, Any]]:
    """Window 4 of length 12: one bin inside, two beyond with unequal weights and mean `beyond`."""
    losses = ((0, 4, inside, 30), (4, 8, beyond - 0.3, 10), (8, 12, beyond + 0.1, 30))
    return [{"from": a, "to": b, "nll": nll, "tokens": n} for a, b, nll, n in losses]


def position(base: Any, extended: Any, rescaled: Any = None) -> dict[str, tuple[float, bool]]:
    rows = {"base": base, "extended": extended, **({"rescaled": rescaled} if rescaled else {})}
    checks = LossByPosition().verdicts(rows, 4, 12)
    return {check["name"]: (check["number"], check["holds"]) for check in checks}


@pytest.mark.parametrize(("rise", "holds"), [(1.01, True), (0.99, False)])
def test_the_base_must_rise_by_one_nat_past_its_window(rise: float, holds: bool) -> None:
    checks = position(bins(2.0, 2.0 + rise), bins(2.0, 2.0))
    assert checks["Base past its window"] == (pytest.approx(rise), holds)
    assert "Rescaled only, past the window" not in checks


@pytest.mark.parametrize(("change", "holds"), [(-0.01, True), (0.01, False)])
def test_rescaling_alone_must_lower_the_loss_past_the_window(change: float, holds: bool) -> None:
    checks = position(bins(2.0, 4.0), bins(2.0, 2.0), bins(9.0, 4.0 + change))
    assert checks["Rescaled only, past the window"] == (pytest.approx(change), holds)


@pytest.mark.parametrize(("change", "holds"), [(0.049, True), (0.051, False), (-1.0, True)])
def test_the_extended_model_may_lose_a_twentieth_inside(change: float, holds: bool) -> None:
    checks = position(bins(2.0, 4.0), bins(2.0 + change, 2.0))
    assert checks["Inside the original window"] == (pytest.approx(change), holds)


def test_no_verdict_is_given_where_no_bin_lies_inside_the_window() -> None:
    """A factor above 16 makes a bin wider than the window: its mean loss is unknown, not zero."""
    wide = [
        {"from": 0, "to": 8, "nll": 2.0, "tokens": 30},
        {"from": 8, "to": 16, "nll": 3.0, "tokens": 30},
    ]
    rows = {"base": wide, "rescaled": wide, "extended": wide}
    names = [check["name"] for check in LossByPosition().verdicts(rows, 4, 16)]
    assert names == ["Rescaled only, past the window"]


@pytest.mark.parametrize(("high", "holds"), [(-0.001, True), (0.001, False)])
def test_the_interval_of_the_gain_must_lie_below_zero(high: float, holds: bool) -> None:
    row = {"context": 12, "difference": -0.18, "difference_low": -0.2, "difference_high": high}
    (check,) = ContextGain().verdicts({"base": [], "extended": [{}, row]}, 4, 12)
    assert (check["number"], check["holds"]) == (-0.18, holds)
    assert check["value"] == f"-0.180 nats [-0.200, {high:+.3f}]"
    assert "12 tokens of context against 4:" in check["rule"]


@pytest.mark.parametrize(("accuracies", "holds"), [((0.9, 0.7), True), ((0.9, 0.69), False)])
def test_passkey_is_judged_by_the_mean_over_depths_at_the_full_length(
    accuracies: tuple[float, float], holds: bool
) -> None:
    rows = [{"length": 12, "depth": d, "accuracy": a} for d, a in enumerate(accuracies)]
    shorter = {"length": 4, "depth": 0, "accuracy": 0.0}
    (check,) = PasskeyRetrieval().verdicts({"extended": [shorter, *rows]}, 4, 12)
    assert check["number"] == pytest.approx(sum(accuracies) / 2) and check["holds"] is holds
    assert PasskeyRetrieval().verdicts({"extended": [shorter]}, 4, 12) == []


def test_without_a_base_or_a_longer_context_nothing_is_judged() -> None:
    assert suites.verdicts({"extended": {}}, 4, 12) == []
    assert suites.verdicts({"base": {}, "extended": {}}, 12, 12) == []


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
    measured: Any = SimpleNamespace(suite=suite, losses=np.ones((2, 63)))
    rows = LossByPosition().rows(measured)
    assert [(row["from"], row["to"]) for row in rows] == [(n, n + 4) for n in range(0, 64, 4)]
