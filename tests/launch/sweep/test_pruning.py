"""Trials that are given up: by the median of the earlier ones at the same step."""

import json
from pathlib import Path
from typing import Any

import pytest

from ropewalk.conf.artifacts.workspace import temporary_folder
from ropewalk.conf.sweeps import SearchConfig
from ropewalk.launch.sweep.pruning import prune
from ropewalk.launch.sweep.space import Range
from ropewalk.launch.sweep.study import STARTUP_TRIALS, Study

optuna = pytest.importorskip("optuna")
STEPS = 40
SPACE = {"train.optimizer.lr": Range(1e-5, 1e-3, is_log=True, is_whole=False)}


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A search whose first trials lost 1, 2, 3 and 4 nats at every step."""
    study = Study(tmp_path, SearchConfig(pruner="median"), SPACE, [])
    for loss in range(1, STARTUP_TRIALS + 1):
        trial = study.propose()
        assert not study.is_pruned(trial, dict.fromkeys(range(1, STEPS + 1), float(loss)), STEPS)
        study.tell(trial, float(loss))
    return study


@pytest.mark.parametrize(("loss", "is_pruned"), [(2.4, False), (2.6, True)])
def test_a_trial_worse_than_the_median_is_given_up(
    study: Study, loss: float, is_pruned: bool
) -> None:
    """The median of 1, 2, 3 and 4 is 2.5."""
    trial = study.propose()
    assert study.is_pruned(trial, {STEPS // 10: loss}, STEPS) == is_pruned


def test_losses_are_reported_at_every_tenth_of_the_steps_once(study: Study) -> None:
    trial = study.propose()
    losses = {step: 1.0 + step / 1000 for step in range(1, 11)}
    study.is_pruned(trial, losses, STEPS)
    study.is_pruned(trial, losses | {step: 1.5 for step in range(11, 14)}, STEPS)
    reported = study.trials[trial.number].intermediate_values
    assert reported == {4: 1.004, 8: 1.008, 12: 1.5}


def run(tmp_path: Path, losses: list[float]) -> Path:
    """A training at work that has come so far."""
    folder = tmp_path / "run"
    temporary = temporary_folder(folder / "train")
    temporary.mkdir(parents=True)
    lines = [json.dumps({"step": n, "loss": loss}) for n, loss in enumerate(losses, 1)]
    (temporary / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


@pytest.mark.parametrize(("loss", "is_pruned"), [(1.0, False), (5.0, True)])
def test_its_training_is_asked_to_stop_by_the_file_that_the_ranks_look_for(
    study: Study, tmp_path: Path, loss: float, is_pruned: bool
) -> None:
    folder = run(tmp_path, [loss] * 5)
    trial: Any = study.propose()
    assert prune(study, trial, folder, STEPS) == is_pruned
    assert (temporary_folder(folder / "train") / "stop").exists() == is_pruned
    study.tell_pruned(trial)
    assert study.trials[trial.number].state == optuna.trial.TrialState.PRUNED


def test_a_run_that_does_not_train_yet_goes_on(study: Study, tmp_path: Path) -> None:
    assert not prune(study, study.propose(), tmp_path / "run", STEPS)
