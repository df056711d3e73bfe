"""The spread over seeds: against published quantiles, and by how often it holds."""

import math
import random

import pytest

from ropewalk.launch.reproduce.spread import spreads

T_2, T_9 = 4.303, 2.262
"""Of Student's t, 95% two-sided, 2 and 9 degrees of freedom (NIST's table)."""


@pytest.mark.parametrize(("n", "t"), [(3, T_2), (10, T_9)])
def test_one_value_has_the_published_half_width(n: int, t: float) -> None:
    numbers = [1.0 + 0.1 * number for number in range(n)]
    mean = sum(numbers) / n
    deviation = math.sqrt(sum((x - mean) ** 2 for x in numbers) / (n - 1))
    (spread,) = spreads([{"loss": x} for x in numbers], {"loss": mean})
    assert spread.half_width == pytest.approx(t * deviation * math.sqrt(1 + 1 / n), rel=2e-4)
    assert (spread.mean, spread.n) == (pytest.approx(mean), n) and spread.holds


def test_a_further_run_is_inside_as_often_as_stated_and_one_far_off_is_not() -> None:
    """Two values looked at together: 95% for both. 1,000 draws of a normal distribution."""
    draw, inside, far = random.Random(0).gauss, 0, 0
    for _ in range(1000):
        runs = [{"a": draw(2, 0.1), "b": draw(3, 0.2)} for _ in range(4)]
        judged = {"a": draw(2, 0.1), "b": draw(3, 0.2)}
        inside += all(spread.holds for spread in spreads(runs, judged))
        far += all(s.holds for s in spreads(runs, {"a": judged["a"] + 3.0, "b": judged["b"]}))
    assert 0.93 < inside / 1000 < 0.98  # Bonferroni: a little above 0.95
    assert far / 1000 < 0.02


def test_only_values_that_all_runs_have_count() -> None:
    runs = [{"a": 1.0, "b": 1.0}, {"a": 1.1}, {"a": 1.2, "b": 2.0}]
    assert [spread.name for spread in spreads(runs, {"a": 1.1, "b": 1.5, "c": 0.0})] == ["a"]
