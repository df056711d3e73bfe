"""Three answers: of simulated models of known effect and by hand; Holm's test by its definition."""

from collections.abc import Sequence

import numpy as np
import pytest

from ropewalk.eval.measure import gates, statistics
from ropewalk.eval.measure.gates import Verdict
from ropewalk.eval.measure.statistics import Estimate

BAR = 0.02


def verdict(value: float, half: float, n: int = 16, question: int | None = 5) -> Verdict:
    estimate = Estimate(value, value - half, value + half, n)
    return Verdict("loss", estimate, BAR, "below", "document", "nats", question)


@pytest.mark.parametrize(
    ("value", "half", "answer"),
    [(0.0, 0.0199, "pass"), (0.0, 0.0201, "undecided"), (0.04, 0.0199, "fail"), (0.0, 0.0, "pass")],
)
def test_an_interval_on_one_side_decides(value: float, half: float, answer: str) -> None:
    assert verdict(value, half).answer() == answer


def test_seven_units_decide_nothing() -> None:
    few = verdict(0.0, 1e-4, n=7)
    assert few.answer() == "undecided" and few.needed_n() == 8
    alone = Verdict("loss", Estimate(0.0, None, None, 1), BAR, "below", "document", "nats")
    assert alone.answer() == "undecided" and alone.needed_n() == 8
    assert alone.text == "+0.000 nats [no interval]"


def test_the_n_that_would_decide_decides_and_one_less_does_not() -> None:
    """With the same value and spread: standard error by 1 / sqrt(n), Student's t by scipy."""
    stats = pytest.importorskip("scipy.stats")
    undecided = verdict(0.0, 0.05, n=16)
    n = undecided.needed_n()
    assert n is not None and n > 16
    spread = 0.05 / stats.t.ppf(0.975, 15) * 4

    def half(units: int) -> float:
        return float(stats.t.ppf(0.975, units - 1) * spread / units**0.5)

    assert half(n) < BAR <= half(n - 1)
    assert verdict(BAR, 0.05).needed_n() is None


def test_holm_is_the_step_down_test() -> None:
    """Holm 1979: the least p at level / m, the next at level / (m - 1), until one is not below."""

    def rejected(p: Sequence[float]) -> set[int]:
        out = set[int]()
        for rank, k in enumerate(sorted(range(len(p)), key=lambda k: p[k])):
            if p[k] >= 0.05 / (len(p) - rank):
                break
            out.add(k)
        return out

    rng = np.random.Generator(np.random.PCG64(0))
    for _ in range(200):
        p = (rng.random(int(rng.integers(1, 7))) ** 3).tolist()
        factors = gates.holm(p)
        found = {k for k in range(len(p)) if p[k] * factors[k] < 0.05}
        assert found == rejected(p)
    assert gates.holm([0.01, 0.04, 0.03]) == pytest.approx([3, 1.5, 2])  # 0.03, 0.06, 0.06


def test_gates_that_decide_are_tested_together_and_others_alone() -> None:
    """Each alone passes by a hair (p just below 5%); two together do not."""
    hair = [verdict(0.0, 0.0199), verdict(0.0, 0.0199), verdict(0.0, 0.0199, question=3)]
    rows = gates.judge(hair, deciding=[1, 5])
    assert [row["verdict"] for row in rows] == ["undecided", "undecided", "pass"]
    assert [row["decides"] for row in rows] == [True, True, False]
    assert rows[0]["adjusted"] == pytest.approx(2 * rows[0]["p"]) and rows[2]["adjusted"] is None
    assert rows[0]["needed_n"] > 16 and rows[2]["needed_n"] is None
    (alone,) = gates.judge(hair[:1], deciding=[5])
    assert alone["verdict"] == "pass"


def shares(loss: float, n: int, trials: int) -> dict[str, float]:
    """How often each answer is given about models that lose `loss` nats, documents spread 0.05."""
    rng = np.random.Generator(np.random.PCG64(n))
    draws = statistics.resamples([f"{k}" for k in range(n)], 0)
    counts = dict.fromkeys(("pass", "fail", "undecided"), 0)
    for _ in range(trials):
        estimate = statistics.mean(rng.normal(loss, 0.05, n), draws)
        counts[Verdict("", estimate, BAR, "", "document", "nats").answer()] += 1
    return {answer: count / trials for answer, count in counts.items()}


@pytest.mark.parametrize("n", [8, 32, pytest.param(128, marks=pytest.mark.slow)])
def test_a_model_on_the_tolerance_passes_and_fails_at_most_in_five_percent(n: int) -> None:
    """The hardest case: any other passes or fails falsely less often."""
    given = shares(BAR, n, 2000)
    assert given["pass"] <= 0.05 and given["fail"] <= 0.05 and given["undecided"] > 0.9


def test_models_of_known_effect_are_judged() -> None:
    """No loss is passed and a great one failed at 128 documents; eight cannot say."""
    assert shares(0.0, 128, 300)["pass"] > 0.95
    assert shares(0.04, 128, 300)["fail"] > 0.95
    assert shares(0.0, 8, 500)["undecided"] > 0.75


@pytest.mark.parametrize(("value", "half"), [(0.0, 0.1), (0.04, 0.4)])
def test_the_half_towards_the_tolerance_counts(value: float, half: float) -> None:
    """Of an interval from 0.4 below to 0.1 above; t of 15 degrees of freedom by scipy."""
    stats = pytest.importorskip("scipy.stats")
    estimate = Estimate(value, value - 0.4, value + 0.1, 16)
    expected = (BAR - value) * stats.t.ppf(0.975, 15) / half
    for better, sign in (("below", 1), ("above", -1)):
        one = Verdict("", estimate, BAR, "", "document", "nats", better=better)  # type: ignore[arg-type]
        assert one.steps == pytest.approx(sign * expected)
        assert one.p == pytest.approx(2 * stats.t.sf(abs(expected), 15))
    assert Verdict("", Estimate(BAR, 0, 1, 16), BAR, "", "document", "nats").steps == 0


def test_a_sample_of_eight_is_the_smallest_that_decides() -> None:
    assert verdict(0.0, 0.001, n=8).answer() == "pass" and verdict(0.0, 0.001, n=8).p < 0.05
    assert verdict(0.0, 0.001, n=7).p == 1.0


def test_values_are_shown_in_their_measure() -> None:
    def text(measure: str) -> str:
        estimate = Estimate(0.5, 0.25, 1.0, 9)
        return Verdict("", estimate, BAR, "", "document", measure).text  # type: ignore[arg-type]

    assert text("nats") == "+0.500 nats [+0.250, +1.000]"
    assert text("points") == "+0.5 points [+0.2, +1.0]"
    assert text("share") == "50% [25%, 100%]"


def test_two_units_say_how_many_would_decide() -> None:
    stats = pytest.importorskip("scipy.stats")
    spread = 1 / stats.t.ppf(0.975, 1) * 2**0.5
    enough = next(n for n in range(8, 999) if stats.t.ppf(0.975, n - 1) * spread / n**0.5 < BAR)
    assert enough > 100 and verdict(0.0, 1.0, n=2).needed_n() == enough
