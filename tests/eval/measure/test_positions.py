"""Answers by depth: fifths, primacy, recency and the worst depth, against plain loops."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from ropewalk.eval.measure.positions import ByDepth, measures

DEPTHS = [round(0.05 + 0.1 * k, 2) for k in range(10)]
Answers = list[tuple[str, float, bool]]


def answers(curve: Sequence[float], haystacks: int, seed: int) -> Answers:
    """Haystacks that differ from one another, so that answers of one are alike."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0, 1, haystacks)
    made = []
    for unit in range(haystacks):
        for depth, share in zip(DEPTHS, curve, strict=True):
            p = stats.norm.cdf(1.41 * stats.norm.ppf(min(max(share, 1e-6), 1 - 1e-6)) + ease[unit])
            made.append((f"h{unit}", depth, bool(rng.random() < p)))
    return made


def measured(made: Answers) -> dict[str, dict[str, float]]:
    rows = measures(ByDepth.of(made), 0)
    return {row["measure"]: row for row in rows if row["measure"] != "curve"}


def test_parts_of_the_curve_are_means_of_their_answers() -> None:
    made = answers([0.95, 0.9, 0.6, 0.5, 0.4, 0.3, 0.4, 0.5, 0.5, 0.6], 30, 1)
    rows = measured(made)
    assert rows["primacy"]["value"] > rows["recency"]["value"] + 0.1
    for name, depths in (
        ("first fifth", DEPTHS[:2]),
        ("middle fifth", DEPTHS[4:6]),
        ("last fifth", DEPTHS[8:]),
    ):
        hits = [hit for _, depth, hit in made if depth in depths]
        assert rows[name]["value"] == pytest.approx(sum(hits) / len(hits))
        assert rows[name]["low"] < rows[name]["value"] < rows[name]["high"]
    middle = rows["middle fifth"]["value"]
    assert rows["primacy"]["value"] == pytest.approx(rows["first fifth"]["value"] - middle)
    assert rows["recency"]["value"] == pytest.approx(rows["last fifth"]["value"] - middle)
    assert {row["n"] for row in rows.values()} == {30}


def test_primacy_has_the_interval_of_scipys_bootstrap_over_haystacks() -> None:
    made = answers([0.9, 0.8, 0.6, 0.5, 0.4, 0.3, 0.4, 0.5, 0.7, 0.8], 60, 2)
    by_unit: dict[str, float] = {}
    for unit, depth, hit in made:
        sign = (depth in DEPTHS[:2]) - (depth in DEPTHS[4:6])
        by_unit[unit] = by_unit.get(unit, 0.0) + sign * hit / 2
    changes = np.array(list(by_unit.values()))
    peer = stats.bootstrap((changes,), np.mean, n_resamples=4000, method="BCa")
    row = measured(made)["primacy"]
    low, high = peer.confidence_interval
    assert row["low"] == pytest.approx(low, abs=0.1 * (high - low))
    assert row["high"] == pytest.approx(high, abs=0.1 * (high - low))


def test_the_worst_depth_and_its_interval_are_those_of_a_plain_loop() -> None:
    made = answers([0.9, 0.8, 0.7, 0.6, 0.35, 0.4, 0.7, 0.7, 0.8, 0.9], 40, 3)
    table = {(unit, depth): hit for unit, depth, hit in made}
    units = sorted({unit for unit, _, _ in made})

    def lowest(drawn: Sequence[str]) -> tuple[float, float]:
        shares = [sum(table[u, d] for u in drawn) / len(drawn) for d in DEPTHS]
        return min(shares), DEPTHS[shares.index(min(shares))]

    rng = random.Random(0)
    drawn = sorted(lowest([rng.choice(units) for _ in units]) for _ in range(3000))
    row = measured(made)["worst"]
    assert (row["value"], row["depth"]) == pytest.approx(lowest(units))
    shares = np.quantile([share for share, _ in drawn], [0.025, 0.975])
    hits = round(40 * row["value"])
    alone = stats.binomtest(hits, 40).proportion_ci(method="wilson")
    ends = (min(shares[0], alone.low), max(shares[1], alone.high))
    assert (row["low"], row["high"]) == pytest.approx(ends, abs=0.03)
    depths = np.quantile([depth for _, depth in drawn], [0.025, 0.975], method="inverted_cdf")
    assert row["depth_low"] == pytest.approx(depths[0])
    assert row["depth_high"] >= depths[1] - 1e-9
    assert 0.3 < row["depth_low"] <= row["depth_high"] < 0.7


def test_intervals_of_primacy_cover_the_true_difference() -> None:
    """A curve of first 80%, middle 50%: primacy 30 points."""
    held = 0
    for seed in range(60):
        row = measured(answers([0.8, 0.8, 0.6, 0.6, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], 25, seed))
        held += row["primacy"]["low"] <= 0.3 <= row["primacy"]["high"]
        assert row["recency"]["low"] <= 0.35
    assert held >= 53  # of 60 at 95%: below 53 by chance in 1 of 100 tries


def test_a_part_that_no_haystack_was_asked_in_has_no_value() -> None:
    made = [(f"h{k}", depth, True) for k in range(9) for depth in (0.05, 0.35, 0.95)]
    rows = measured(made)
    assert rows["middle fifth"]["value"] is None and rows["middle fifth"]["n"] == 0
    assert rows["primacy"]["value"] is None and rows["first fifth"]["value"] == 1
    assert rows["primacy"]["reason"] == "no haystack was asked in this part"


def test_haystacks_without_a_question_in_both_parts_are_left_out_and_counted() -> None:
    made = [(f"h{k}", depth, k % 2 == 0) for k in range(12) for depth in DEPTHS]
    made = [a for a in made if not (a[0] in ("h3", "h5") and 0.4 < a[1] < 0.6)]
    rows = measured(made)
    assert rows["primacy"]["n"] == 10 and rows["first fifth"]["n"] == 12


@pytest.mark.parametrize("hit", [False, True])
@pytest.mark.parametrize("haystacks", [4, 20])
def test_no_interval_is_empty_where_all_answers_agree(hit: bool, haystacks: int) -> None:
    """0 of 4 is also a model that finds 40%, and every depth may be its worst."""
    rows = measured([(f"h{k}", depth, hit) for k in range(haystacks) for depth in DEPTHS])
    likely = 0.4 if haystacks == 4 else 0.15
    low, high = (1 - likely, 1.0) if hit else (0.0, likely)
    worst = rows["worst"]
    assert worst["value"] == hit and worst["low"] <= low and worst["high"] >= high - 1e-9
    assert (worst["depth_low"], worst["depth_high"]) == (0.05, 0.95)
    for name in ("primacy", "recency"):
        assert rows[name]["value"] == 0
        assert rows[name]["low"] <= -likely and rows[name]["high"] >= likely


def test_a_fifth_has_the_depths_at_its_ends() -> None:
    depths = (0.0, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 1.0)
    by_depth = ByDepth.of([("h", depth, depth in (0.0, 0.4, 0.8)) for depth in depths])
    for name in ("first fifth", "middle fifth", "last fifth"):
        assert by_depth.fifth(name).tolist() == [[1.0, 0.0]]
