"""The search on losses in closed form: its choice, its cost, and resuming after a kill."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.eval import CalibrateConfig
from ropewalk.conf.rope_methods import Rotary
from ropewalk.eval.calibrate import evolution, ramp, results, search
from ropewalk.eval.calibrate.search import SearchSetup
from ropewalk.eval.calibrate.trial import (
    Candidate,
    Loss,
    Trial,
    best,
    loss,
    objective_per_window,
    paper,
    spent,
    survives,
)

ROTARY, FACTOR = Rotary(32, 1e4, 64), 8.0
WINDOWS = np.zeros((4, 512), dtype=np.int64)


def task(**changes: Any) -> SearchSetup:
    config = replace(CalibrateConfig(max_forward_passes=150), **changes)
    return SearchSetup(config, 0, FACTOR, ROTARY, 64, WINDOWS)


class FakeModel:
    """A model whose loss is the squared distance of a table to a target; it counts its tokens."""

    def __init__(self) -> None:
        self.tokens, self.calls = 0, 0
        target = ramp.candidate({"beta_slow": 0.5, "spread": 32.0, "attention_factor": 1.1}, FACTOR)
        self.target = target.rope.table(ROTARY)

    def distance(self, candidate: Candidate) -> float:
        table = candidate.rope.table(ROTARY)
        ratio = np.log(table.inv_freq / self.target.inv_freq)
        temperature = table.attention_factor - self.target.attention_factor
        return float((ratio**2).mean() + temperature**2)

    def __call__(self, candidate: Candidate, windows: np.ndarray) -> np.ndarray:
        self.tokens, self.calls = self.tokens + windows.size, self.calls + 1
        return np.full((len(windows), windows.shape[1] - 1), self.distance(candidate))


def run(setup: SearchSetup, model: FakeModel, log: Path) -> list[Trial]:
    return search.search(setup, model, log, lambda trial: None)


def test_loss_is_split_at_the_window() -> None:
    # Positions 1 to 5; a window of 4 holds positions 0 to 3.
    nll = np.array([[1.0, 1.0, 1.0, 5.0, 5.0]])
    assert loss(nll, 4, 0.25) == Loss(1.0, 5.0, 0.25 * 1 + 0.75 * 5)


def test_the_objective_of_each_window_averages_to_that_of_all() -> None:
    nll = np.array([[1.0, 2.0, 3.0, 5.0, 6.0], [3.0, 4.0, 2.0, 7.0, 9.0]])
    by_hand = [[0.25 * 2 + 0.75 * 5.5], [0.25 * 3 + 0.75 * 8]]
    np.testing.assert_allclose(objective_per_window(nll, 4, 0.25), by_hand)
    assert np.mean(by_hand) == pytest.approx(loss(nll, 4, 0.25).value)


@pytest.mark.parametrize("searcher", ["ramp", "longrope", "both"])
def test_search_beats_every_paper_within_its_budget(tmp_path: Path, searcher: str) -> None:
    model, setup = FakeModel(), task(searcher=searcher)
    trials = run(setup, model, tmp_path / "trials.jsonl")
    measured_cost = model.tokens / WINDOWS.shape[1]
    assert spent(trials) == pytest.approx(measured_cost)
    assert spent(trials) <= 150 < spent(trials) + setup.max_trial_cost
    papers = [t for t in trials if t.candidate.searcher == "paper"]
    assert [t.candidate.settings["method"] for t in papers] == setup.config.methods
    lowest = best(trials)
    assert lowest.full is not None and lowest.candidate.searcher != "paper"
    assert lowest.value < (0.7 if searcher != "ramp" else 0.5) * min(t.value for t in papers)
    searchers = {"ramp", "longrope"} if searcher == "both" else {searcher}
    assert {t.candidate.searcher for t in trials} == {"paper"} | searchers


def test_only_the_worse_half_is_pruned_and_never_a_paper(tmp_path: Path) -> None:
    trials = run(task(), FakeModel(), tmp_path / "trials.jsonl")
    assert all(t.full is not None for t in trials if t.candidate.searcher == "paper")
    for k, trial in enumerate(trials):
        if trial.candidate.searcher != "paper":
            better = sum(t.short.value < trial.short.value for t in trials[:k])
            assert (trial.full is None) == (better > (k - 1) // 2)
    assert any(t.full is None for t in trials)


@pytest.mark.parametrize("searcher", ["ramp", "longrope", "both"])
def test_same_seed_same_trials_and_another_seed_others(tmp_path: Path, searcher: str) -> None:
    first, second = (
        run(task(searcher=searcher), FakeModel(), tmp_path / f"{k}.jsonl") for k in "ab"
    )
    assert first == second
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "b.jsonl").read_text()
    other = run(replace(task(searcher=searcher), seed=1), FakeModel(), tmp_path / "c.jsonl")
    assert first != other


@pytest.mark.parametrize("searcher", ["ramp", "longrope", "both"])
@pytest.mark.parametrize("lines", [1, 5, 9, 14])
def test_a_killed_search_resumes_with_the_same_trials(
    tmp_path: Path, searcher: str, lines: int
) -> None:
    log, cut = tmp_path / "full.jsonl", tmp_path / "cut.jsonl"
    full, model = run(task(searcher=searcher), FakeModel(), log), FakeModel()
    text = log.read_text().splitlines(keepends=True)
    half_line = text[lines][: len(text[lines]) // 2]
    cut.write_text("".join(text[:lines]) + half_line)
    assert run(task(searcher=searcher), model, cut) == full
    assert cut.read_text() == log.read_text()
    assert model.tokens == pytest.approx(sum(t.passes for t in full[lines:]) * WINDOWS.shape[1])


def test_a_budget_below_the_cost_of_the_papers_methods_is_refused() -> None:
    message = (
        r"calibrate\.max_forward_passes is 20; the 6 methods .* take 27, on 4 stretches; raise"
    )
    with pytest.raises(ConfigError, match=message):
        search.refuse(task(max_forward_passes=20))
    search.refuse(task(max_forward_passes=27))


def test_prefix_is_longer_than_the_window_and_shorter_than_the_text() -> None:
    assert task().prefix == 128
    short = replace(task(), windows=np.zeros((2, 96), dtype=np.int64))
    assert (short.prefix, short.short_windows.shape) == (80, (1, 80))


def test_the_better_half_survives() -> None:
    def trial(value: float) -> Trial:
        return Trial(0, paper("yarn", 2.0), Loss(0, 0, value), None, 1.0)

    assert survives(Loss(0, 0, 9.0), [])
    assert survives(Loss(0, 0, 2.0), [trial(1.0), trial(2.0), trial(3.0)])
    assert not survives(Loss(0, 0, 2.1), [trial(1.0), trial(2.0), trial(3.0)])


def test_evolution_starts_from_the_papers_methods() -> None:
    """arXiv 2402.13753, section 3.2: divisors from 1 to 1.25 s, never falling."""
    pi, ntk = (evolution.start(m, FACTOR, ROTARY).params["divisors"] for m in ("pi", "ntk"))
    assert pi == pytest.approx([FACTOR] * 16)
    assert ntk == pytest.approx([FACTOR ** (2 * i / 30) for i in range(16)])  # s^(2i/(d-2))
    yarn = evolution.start("yarn", FACTOR, ROTARY)
    assert yarn.params["attention_factor"] == pytest.approx(0.1 * math.log(8) + 1)


def test_every_child_has_monotone_divisors_within_the_bounds(tmp_path: Path) -> None:
    trials = run(task(searcher="longrope"), FakeModel(), tmp_path / "trials.jsonl")
    children = [t.candidate for t in trials if t.candidate.searcher == "longrope"]
    assert len(children) > 20 and len({json.dumps(c.params) for c in children}) > 15
    for child in children:
        divisors = np.array(child.settings["long_factor"])
        assert divisors.min() >= 1 and divisors.max() <= 1.25 * FACTOR
        assert (np.diff(divisors) >= 0).all()


def test_a_pruned_trial_ranks_behind_every_full_one() -> None:
    def value(short: float, full: float | None) -> float:
        loss_ = None if full is None else Loss(0, 0, full)
        return Trial(0, paper("yarn", 2.0), Loss(0, 0, short), loss_, 1.0).value

    assert value(9.0, 8.0) < value(9.0, 9.0) < value(0.5, None) < value(0.6, None)


@pytest.mark.parametrize("searcher", ["ramp", "both"])
def test_without_optuna_the_ramp_is_refused_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch, searcher: str
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    message = rf"searcher is {searcher}; it needs optuna.*pip install 'ropewalk\[calibrate\]'"
    with pytest.raises(ConfigError, match=message):
        search.refuse(task(searcher=searcher))
    search.refuse(task(searcher="longrope"))


def test_verdict_is_better_worse_no_gain_or_too_few_documents() -> None:
    def verdict(nll: float, low: float, high: float, documents: int = 9) -> str:
        return results.verdict({"nll": nll, "low": low, "high": high}, documents)

    assert verdict(-0.02, -0.03, -0.01).startswith("better: -0.0200 nats [-0.0300, -0.0100]")
    assert verdict(0.02, 0.01, 0.03).startswith("worse: ")
    no_gain = verdict(-0.02, -0.05, 0.01)
    assert no_gain.startswith("no gain shown: ") and "holds zero" in no_gain
    assert verdict(-0.02, -0.02, -0.02, 1) == (
        "undecided on 1 document(s): -0.0200 nats against yarn's defaults, and 4 are needed "
        "for an interval"
    )
    assert verdict(0.0, 0.0, 0.0) == "the same plan as yarn's defaults"


def test_half_of_the_mutations_keep_their_parents_temperature() -> None:
    rng = np.random.default_rng(0)
    parent = {"divisors": [1.0] * 16, "attention_factor": 1.25}
    mutated = [evolution._mutated(parent, rng)["attention_factor"] for _ in range(400)]
    unchanged = sum(temperature == 1.25 for temperature in mutated)
    assert abs(unchanged - 200) < 5 * 10  # five sigma of 400 even draws
    assert all(0.8 < temperature < 2 for temperature in mutated)


def test_a_ramp_has_real_borders_in_the_proportion_of_its_spread() -> None:
    params = {"beta_slow": 0.5, "spread": 32.0, "attention_factor": 1.1}
    settings = ramp.candidate(params, FACTOR).settings
    assert (settings["beta_slow"], settings["beta_fast"], settings["truncate"]) == (0.5, 16, False)
    assert (settings["factor"], settings["attention_factor"]) == (FACTOR, 1.1)


def test_the_ramps_estimator_sees_its_settings_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna's multivariate TPE: the borders and the temperature depend on one another."""
    optuna = pytest.importorskip("optuna")
    made: list[Any] = []
    sampler = optuna.samplers.TPESampler

    def recorded(**kwargs: Any) -> Any:
        made.append(kwargs)
        return sampler(**kwargs)

    monkeypatch.setattr(optuna.samplers, "TPESampler", recorded)
    for seed, number in ((0, 7), (2, 7)):
        ramp.propose([], seed=seed, number=number, factor=FACTOR)
    assert all(kwargs["multivariate"] is True for kwargs in made)
    assert len({kwargs["seed"] for kwargs in made}) == 2


class Numbers:
    """Random numbers by hand: each call takes the next."""

    def __init__(self, *values: Any) -> None:
        self.values = list(values)

    def _next(self, *_: Any) -> Any:
        return self.values.pop(0)

    random = normal = integers = _next


PARENT = {"divisors": [1.0, 2.0, 4.0, 8.0], "attention_factor": 1.2}


def test_a_mutation_moves_single_divisors_or_a_run_of_neighbours() -> None:
    """By the exponential of a normal number; the temperature too in half of them."""
    shifts, chosen = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.31, 0.29, 0.0, 0.9])
    single: Any = Numbers(0.49, shifts, chosen, 0.5)
    child = evolution._mutated(PARENT, single)
    moved = [1.0, 2 * math.exp(0.2), 4 * math.exp(0.3), 8.0]
    assert child["divisors"] == pytest.approx(moved) and child["attention_factor"] == 1.2
    for ends, moves in (([3, 1], [0, 1, 1, 0]), ([2, 2], [0] * 4), ([0, 4], [1] * 4)):
        run: Any = Numbers(0.5, np.array(ends), -0.7, 0.49, 0.02)
        child = evolution._mutated(PARENT, run)
        factors = np.exp(-0.7 * np.array(moves))
        assert child["divisors"] == pytest.approx(np.array(PARENT["divisors"]) * factors)
        assert child["attention_factor"] == pytest.approx(1.2 * math.exp(0.02))


def test_a_crossing_takes_each_divisor_from_one_of_two() -> None:
    other = {"divisors": [9.0] * 4, "attention_factor": 1.5}
    for last, temperature in ((0.49, 1.2), (0.5, 1.5)):
        crossing: Any = Numbers(np.array([0.49, 0.5, 0.2, 0.8]), last)
        child = evolution._crossed(PARENT, other, crossing)
        assert child["divisors"].tolist() == [1, 9, 4, 9]
        assert child["attention_factor"] == temperature


def test_divisors_are_clipped_and_made_monotone_from_both_ends() -> None:
    """Running maximum 1, 3, 3, 10 and running minimum from the end 1, 2, 2, 10: their mean."""
    made = evolution._monotone(np.array([0.5, 3.0, 2.0, 99.0]), 8.0)
    assert made.tolist() == [1, 2.5, 2.5, 10]
