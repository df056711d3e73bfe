"""A search: what it proposes, resumed after a kill; its budget; its trials as Optuna has them."""

import contextlib
import io
import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import search_program

from ropewalk.conf.errors import ConfigError
from ropewalk.launch.sweep import before, chosen, search, search_plan

optuna = pytest.importorskip("optuna")
TRIALS = "sweep.search.trials=6"


@pytest.fixture(autouse=True, scope="module")
def restored() -> Iterator[None]:
    """What the program replaces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "pool_of", search.pool_of)
        patch.setattr(before, "preflight", before.preflight)
        yield


def killed(runs_dir: Path, at: int) -> int:
    """The exit code of the search in a process of its own, killed when trial `at` is at work."""
    command = [sys.executable, search_program.__file__, str(runs_dir), str(at), TRIALS]
    return subprocess.run(command, capture_output=True, timeout=300).returncode


def study(runs_dir: Path) -> Any:
    """Read by Optuna itself."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    journal = runs_dir / "sweeps" / "demo-search" / "study.journal"
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.load_study(study_name="demo-search", storage=storage)


def trials(runs_dir: Path) -> list[tuple[Any, ...]]:
    return [(t.number, t.state.name, t.value, t.params) for t in study(runs_dir).trials]


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search without an interruption."""
    folder = tmp_path_factory.mktemp("runs")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        search_program.run(folder, -1, TRIALS)
    (folder / "printed").write_text(printed.getvalue())
    return folder


def test_a_search_that_was_killed_gets_the_same_trials(runs_dir: Path, tmp_path: Path) -> None:
    assert killed(tmp_path, 3) == -signal.SIGKILL
    states = [trial[1] for trial in trials(tmp_path)]
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "RUNNING"]
    search_program.run(tmp_path, -1, TRIALS)
    assert trials(tmp_path) == trials(runs_dir)
    assert len(trials(tmp_path)) == 6


def test_every_trial_is_shown_and_the_best_is_named(runs_dir: Path) -> None:
    printed, best = (runs_dir / "printed").read_text(), study(runs_dir).best_trial
    assert f"the best run is demo-search-{best.number} " in printed
    assert f"train.optimizer.lr={best.params['train.optimizer.lr']!r}" in printed
    assert "  demo-search-1  fail" in printed
    record = json.loads((runs_dir / "sweeps" / "demo-search" / "sweep.json").read_text())
    assert record["search"]["best"] == f"demo-search-{best.number}"
    assert [(t["number"], t["state"].upper(), t["value"]) for t in record["search"]["trials"]] == [
        trial[:3] for trial in trials(runs_dir)
    ]
    assert [job["state"] for job in record["jobs"]].count("failed") == 1


def test_the_value_is_that_of_the_run_and_within_the_range(runs_dir: Path) -> None:
    for trial in study(runs_dir).trials:
        lr, rope = trial.params["train.optimizer.lr"], trial.params["rope"]
        assert 1e-5 <= lr <= 1e-2 and rope in ("yarn", "pi")
        if trial.number != search_program.FAILING:
            expected = (math.log10(lr) + 3.5) ** 2 + (0.5 if rope == "pi" else 0)
            assert trial.value == pytest.approx(expected)


def test_a_search_goes_on_when_its_budget_is_raised_and_only_then(
    runs_dir: Path, tmp_path: Path
) -> None:
    search_program.run(tmp_path, -1, "sweep.search.minutes=2.5")
    assert trials(tmp_path) == trials(runs_dir)[:3]  # of a minute each
    search_program.run(tmp_path, -1, "sweep.search.gpu_hours=0.05")
    assert len(trials(tmp_path)) == 3
    with pytest.raises(ConfigError, match=r"settings\.direction was"):
        search_program.run(tmp_path, -1, "sweep.search.direction=maximize")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rope=yarn"], "something must be searched"),
        (["train.optimizer.lr=log(1e-3,1e-5)"], "the lower one first"),
        (["train.steps=interval(1,2.5)"], "of whole numbers"),
        (["name=interval(1,2)"], "name is interval.*it is no number"),
        (["train.optimizer.lr=interval(-1,1)"], "train.optimizer.lr is -1.0"),
        (["rope=yarn,pi", "sweep.search.objective=loss"], "objective is loss; it must be results"),
        (["rope=yarn,pi", "sweep.search.objective=results.extended.passkey"], "train measures"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_the_first_trial(
    words: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        search_plan.plan(chosen.choose([*search_program.BASE, *words]), "train")
