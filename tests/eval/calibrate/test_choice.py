"""Which trial becomes the plan: shown to be better on enough documents, or the papers' own."""

from types import SimpleNamespace

import numpy as np
import pytest

from ropewalk.data.dataset import Window
from ropewalk.eval.calibrate import candidate_model
from ropewalk.eval.calibrate.choice import choose
from ropewalk.eval.calibrate.trial import Candidate, Loss, Trial, paper

LOSSES = (3.0, 2.0, 2.5, 3.5)
FOUR = ["a", "b", "c", "d"]


def full_trial(number: int, candidate: Candidate, per_window: tuple[float, ...]) -> Trial:
    value = sum(per_window) / len(per_window)
    return Trial(
        number, candidate, Loss(value, value, value), Loss(value, value, value), 1.0, per_window
    )


def trials(*differences: float) -> list[Trial]:
    """YaRN, PI, and a ramp that differs from YaRN by `differences` on each window."""
    candidate = Candidate("ramp", {"method": "yarn", "factor": 2.0})
    better = tuple(e + d for e, d in zip(LOSSES, differences, strict=True))
    pi = full_trial(1, paper("pi", 2.0), tuple(e + 1 for e in LOSSES))
    return [full_trial(0, paper("yarn", 2.0), LOSSES), pi, full_trial(2, candidate, better)]


def test_better_on_every_document_is_chosen() -> None:
    choice = choose(trials(-0.02, -0.01, -0.03, -0.02), FOUR)
    assert (choice.trial.number, choice.lowest.number, choice.reason) == (2, 2, None)


def test_better_in_the_mean_by_one_document_only_is_not_chosen() -> None:
    choice = choose(trials(-0.2, 0.02, 0.03, 0.04), FOUR)
    assert (choice.trial.number, choice.lowest.number) == (0, 2)
    assert (
        choice.reason
        == "trial 2 (ramp) was lower by 0.0275 nats in the mean, and on 1 of 4 documents only"
    )


def test_a_document_counts_once_however_many_stretches_it_has() -> None:
    differences = (-0.3, -0.3, 0.01, 0.01, 0.01)
    candidate = Candidate("ramp", {"method": "yarn", "factor": 2.0})
    per_window = tuple(2.0 + d for d in differences)
    finished = [full_trial(0, paper("yarn", 2.0), (2.0,) * 5), full_trial(1, candidate, per_window)]
    assert choose(finished, ["a", "a", "b", "c", "d"]).trial.number == 0


@pytest.mark.parametrize("documents", [["a"] * 4, ["a", "a", "b", "b"], ["a", "b", "c", "c"]])
def test_on_few_documents_nothing_is_preferred_however_large_the_gain(documents: list[str]) -> None:
    choice = choose(trials(-1.0, -1.0, -1.0, -1.0), documents)
    assert choice.trial.number == 0 and choice.reason is not None
    assert (
        f"on {len(set(documents))} document(s); 4 are needed to prefer it; raise calibrate.windows"
        in choice.reason
    )


def test_a_paper_with_the_lowest_loss_is_chosen_without_a_reason() -> None:
    choice = choose(trials(0.01, 0.01, 0.01, 0.01), FOUR)
    assert (choice.trial.number, choice.lowest.number, choice.reason) == (0, 0, None)


def test_a_candidate_must_beat_the_lowest_of_the_papers() -> None:
    finished = trials(-0.02, -0.01, -0.03, -0.02)
    llama3 = full_trial(3, paper("llama3", 2.0), tuple(e - 0.5 for e in LOSSES))
    assert choose([*finished, llama3], FOUR).trial.number == 3


@pytest.mark.parametrize(
    "sources", [{"a": 6}, {"a": 4, "b": 5}, {"a": 1, "b": 1}, {"a": 1, "b": 9}]
)
def test_half_of_the_documents_of_each_source_are_chosen_on_and_the_others_reported_on(
    sources: dict[str, int],
) -> None:
    """Documents of two sources may have the same ids."""
    windows = [
        Window(str(number), np.empty(0, np.int64), source)
        for _ in range(2)
        for source, count in sources.items()
        for number in range(count)
    ]
    config = SimpleNamespace(
        seed=0,
        data=None,
        eval=SimpleNamespace(windows_per_document=2),
        calibrate=SimpleNamespace(windows=100, report_windows=100),
    )
    heldout = SimpleNamespace(windows=lambda *_: windows)
    sides = candidate_model.split(config, heldout, SimpleNamespace(max_position_embeddings=8))  # type: ignore[arg-type]
    chosen, reported = ({w.origin for w in side} for side in sides)
    total = sum(sources.values())
    assert not chosen & reported and len(chosen) + len(reported) == total
    assert len(chosen) == total // 2
    assert len(sides[0]) + len(sides[1]) == 2 * total
    for source, count in sources.items():
        on = sum(origin.startswith(source) for origin in chosen)
        assert abs(on - count / 2) <= 0.5
    for side in sides:  # in turn: until a source has no more
        names = [window.source for window in side]
        both = 2 * min((names.count(source) for source in sources), default=0)
        assert len(sources) == 1 or names[:both] == ["ab"[i % 2] for i in range(both)]
