"""The search: candidates in turn, short prefixes first, within a budget of forward passes."""

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.conf.artifacts.records import is_signed, remove, signed, write_text
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.eval import CalibrateConfig
from ropewalk.conf.rope_methods import Rotary
from ropewalk.eval.calibrate import evolution, ramp
from ropewalk.eval.calibrate.trial import (
    Candidate,
    Loss,
    Trial,
    loss,
    objective_per_window,
    paper,
    spent,
    survives,
)

Measure = Callable[[Candidate, np.ndarray], np.ndarray]
"""Candidate, windows (N, S) -> losses (N, S-1)."""


@dataclass(frozen=True)
class SearchSetup:
    """Settings and text of a search: pure values."""

    config: CalibrateConfig
    seed: int
    factor: float
    rotary: Rotary
    window: int  # the base's, tokens: splits inside from beyond
    windows: np.ndarray  # (N, S): held-out text to choose on

    @property
    def prefix(self) -> int:
        """Tokens of the short prefix: two base windows, at most the mean of window and length."""
        return min(2 * self.window, (self.window + self.windows.shape[1]) // 2)

    @property
    def short_windows(self) -> np.ndarray:
        """Short prefixes of every other window: (ceil(N/2), prefix)."""
        return self.windows[::2, : self.prefix]

    def cost(self, windows: np.ndarray) -> float:
        """Cost in forward passes of a full window."""
        return windows.size / self.windows.shape[1]

    @property
    def max_trial_cost(self) -> float:
        """Highest cost of a trial, in forward passes of a full window."""
        return self.cost(self.short_windows) + self.cost(self.windows)


def search(
    setup: SearchSetup, measure: Measure, log: Path, on_trial: Callable[[Trial], None]
) -> list[Trial]:
    """Measure until the budget is spent; `log` holds a line a finished trial, for resuming."""
    finished = read(log)
    for trial in finished:
        on_trial(trial)
    while (candidate := propose(setup, finished)) is not None:
        trial = run_trial(setup, candidate, finished, measure)
        append(log, trial)
        finished.append(trial)
        on_trial(trial)
    return finished


def refuse(setup: SearchSetup) -> None:
    """Raises: ConfigError without optuna, or when the papers' methods exceed the budget."""
    if setup.config.searcher != "longrope":
        ramp.refuse_without_optuna(setup.config.searcher)
    min_passes = math.ceil(len(setup.config.methods) * setup.max_trial_cost)
    if setup.config.max_forward_passes < min_passes:
        raise ConfigError(
            f"calibrate.max_forward_passes is {setup.config.max_forward_passes}; the "
            f"{len(setup.config.methods)} methods of calibrate.methods alone take {min_passes}, on "
            f"{len(setup.windows)} stretches; raise it, or lower calibrate.windows"
        )


def propose(setup: SearchSetup, finished: Sequence[Trial]) -> Candidate | None:
    """The papers' methods first, then the searcher that spent less; None without budget."""
    if len(finished) < len(setup.config.methods):
        return paper(setup.config.methods[len(finished)], setup.factor)
    if spent(finished) + setup.max_trial_cost > setup.config.max_forward_passes:
        return None
    names = ("ramp", "longrope") if setup.config.searcher == "both" else (setup.config.searcher,)
    name = min(names, key=lambda n: spent([t for t in finished if t.candidate.searcher == n]))
    number = sum(t.candidate.searcher == name for t in finished)
    kwargs: dict[str, Any] = {"seed": setup.seed, "number": number, "factor": setup.factor}
    if name == "ramp":
        return ramp.propose(finished, **kwargs)
    population = setup.config.population
    return evolution.propose(finished, **kwargs, rotary=setup.rotary, population=population)


def run_trial(
    setup: SearchSetup, candidate: Candidate, finished: Sequence[Trial], measure: Measure
) -> Trial:
    """One trial: short prefixes first, then full windows unless it was pruned."""
    number, window, share = len(finished), setup.window, setup.config.inside_weight
    short = loss(measure(candidate, setup.short_windows), window, share)
    cost = setup.cost(setup.short_windows)
    if candidate.searcher != "paper" and not survives(short, finished):
        return Trial(number, candidate, short, None, cost)
    nll = measure(candidate, setup.windows)
    full, cost = loss(nll, window, share), cost + setup.cost(setup.windows)
    per_window = tuple(objective_per_window(nll, window, share)[:, 0].tolist())
    return Trial(number, candidate, short, full, cost, per_window)


def append(log: Path, trial: Trial) -> None:
    """Append one line and force it to disk before the next trial starts."""
    with log.open("a") as file:
        file.write(json.dumps(signed(_to_row(trial))) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(log: Path) -> list[Trial]:
    """Finished trials. A line that a kill left incomplete, or that is damaged, is removed with the
    lines after it, which the search makes again."""
    if log.is_dir():
        remove(log)
    if not log.is_file():
        return []
    lines = log.read_text(errors="replace").splitlines(keepends=True)
    rows = list(takewhile(lambda row: row is not None, map(_signed_row, lines)))
    if len(rows) < len(lines):
        if lines[len(rows)].endswith("\n"):
            print(f"calibrate: {log} line {len(rows) + 1} is damaged; made again from there")
        write_text(log, "".join(lines[: len(rows)]))
    return [_from_row(row) for row in rows if row is not None]


def _signed_row(line: str) -> dict[str, Any] | None:
    """A line as it was signed; else None."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if line.endswith("\n") and is_signed(row) else None


def _to_row(trial: Trial) -> dict[str, Any]:
    """A line of the log; `whole`, `each` and `place` are keys of its format."""
    searcher, settings, params = astuple(trial.candidate)
    return {
        "number": trial.number,
        "candidate": {"searcher": searcher, "settings": settings, "place": params},
        "short": asdict(trial.short),
        "whole": trial.full and asdict(trial.full),
        "passes": trial.passes,
        "each": trial.per_window,
    }


def _from_row(row: dict[str, Any]) -> Trial:
    candidate = Candidate(*(row["candidate"][key] for key in ("searcher", "settings", "place")))
    full = row["whole"] and Loss(**row["whole"])
    short, per_window = Loss(**row["short"]), tuple(row["each"])
    return Trial(row["number"], candidate, short, full, row["passes"], per_window)
