"""What the search prints while it runs."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ropewalk.eval.calibrate import stage
from ropewalk.eval.calibrate.trial import Loss, Trial, paper


def trial(number: int, full: float | None) -> Trial:
    losses = [None if value is None else Loss(value, value, value) for value in (1.0, full)]
    return Trial(number, paper("yarn", 2.0), losses[0], losses[1], 1.0)  # type: ignore[arg-type]


def test_a_line_is_printed_for_each_trial_with_the_lowest_loss_so_far(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trials = [trial(n, value) for n, value in enumerate((3.0, 2.0, 2.5, None, 2.0, 1.5))]

    def search(setup: Any, measure: Any, log: Path, on_trial: Callable[[Trial], None]) -> Any:
        for finished in trials:
            on_trial(finished)
        return trials

    monkeypatch.setattr(stage, "search", search)
    setup: Any = SimpleNamespace(config=SimpleNamespace(max_forward_passes=6))
    live: Any = SimpleNamespace(measure=None)
    assert stage.run_search(setup, live, Path("trials.jsonl")) == trials
    output = capsys.readouterr().out
    assert re.findall(r"^calibrate: trial (\d+) ", output, re.M) == ["0", "1", "5"]


def test_losses_of_a_plan_are_computed_once_unless_their_file_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage.candidate_model, "stack", list)
    calls = list[str]()

    def nll(plan: Any, windows: Any) -> np.ndarray:
        calls.append(plan.hash)
        return np.full((2, 3), len(calls))

    live: Any = SimpleNamespace(nll=nll)
    one, other = (SimpleNamespace(hash=name) for name in ("one", "other"))

    def value(plan: Any) -> float:
        return float(stage.cached_nll(tmp_path, "yarn", live, plan, []).mean())

    assert [value(one), value(one), value(other), value(one)] == [1, 1, 2, 1]
    assert calls == ["one", "other"]
    (file,) = tmp_path.glob("one.*.npy")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert value(one) == 3 and value(other) == 2 and not (tmp_path / "losses.npy").exists()
