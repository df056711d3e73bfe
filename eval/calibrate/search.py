"""The search: candidates one after another, short prefixes first, until the budget of forward passes is spent."""

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.eval import CalibrateConfig
from ropewalk.eval.calibrate import evolution, ramp
from ropewalk.eval.calibrate.trial import (
    Candidate,
    Loss,
    Trial,
    loss,
    paper,
    spent,
    survives,
    weighted,
)
from ropewalk.train.rope.methods import Rotary

Measure = Callable[
    [Candidate, np.ndarray], np.ndarray
]  # candidate, windows (N, S) -> losses (N, S-1)


@dataclass(frozen=True)
class Task:
    """What is searched: pure values."""

    config: CalibrateConfig
    seed: int
    factor: float
    rotary: Rotary
    window: int  # what the base reads as it is: inside and beyond part here
    windows: np.ndarray  # (N, S): the stretches that candidates are chosen on

    @property
    def prefix(self) -> int:
        """Tokens of the short prefix: two of the base's windows, or half way to the end where that is less."""
        return min(2 * self.window, (self.window + self.windows.shape[1]) // 2)

    @property
    def few(self) -> np.ndarray:
        """The short prefixes of every other stretch: (ceil(N/2), prefix)."""
        return self.windows[::2, : self.prefix]

    def cost(self, windows: np.ndarray) -> float:
        """In forward passes of a whole stretch."""
        return windows.size / self.windows.shape[1]

    @property
    def trial(self) -> float:
        """What a trial costs at most."""
        return self.cost(self.few) + self.cost(self.windows)


def search(
    task: Task, measure: Measure, log: Path, tell: Callable[[Trial], None] = lambda trial: None
) -> list[Trial]:
    """Measure until the budget is spent; `log` gets a line a trial, and what it holds is not measured again."""
    finished = read(log)
    for trial in finished:
        tell(trial)
    while (candidate := propose(task, finished)) is not None:
        trial = measured(task, len(finished), candidate, finished, measure)
        append(log, trial)
        finished.append(trial)
        tell(trial)
    return finished


def refuse(task: Task) -> None:
    """What would stop the search later. Raises: ConfigError without optuna, or when the budget does not reach for the papers."""
    if task.config.searcher != "longrope":
        ramp.refuse_without_optuna(task.config.searcher)
    least = math.ceil(len(task.config.methods) * task.trial)
    if task.config.max_forward_passes < least:
        raise ConfigError(
            f"calibrate.max_forward_passes is {task.config.max_forward_passes}; the {len(task.config.methods)} methods of calibrate.methods alone take {least}, on "
            f"{len(task.windows)} stretches; raise it, or lower calibrate.windows"
        )


def propose(task: Task, finished: Sequence[Trial]) -> Candidate | None:
    """The papers' methods first, then the searcher with less spent of its share; None when the budget is spent."""
    if len(finished) < len(task.config.methods):
        method = task.config.methods[len(finished)]
        return paper(method, task.factor)
    if spent(finished) + task.trial > task.config.max_forward_passes:
        return None
    names = ("ramp", "longrope") if task.config.searcher == "both" else (task.config.searcher,)
    name = min(names, key=lambda n: spent([t for t in finished if t.candidate.searcher == n]))
    number = sum(t.candidate.searcher == name for t in finished)
    words: dict[str, Any] = {"seed": task.seed, "number": number, "factor": task.factor}
    if name == "ramp":
        return ramp.propose(finished, **words)
    return evolution.propose(
        finished, **words, rotary=task.rotary, population=task.config.population
    )


def measured(
    task: Task, number: int, candidate: Candidate, finished: Sequence[Trial], measure: Measure
) -> Trial:
    """One trial: the short prefix of every other stretch, then all of them whole unless it was pruned."""
    window, share = task.window, task.config.inside_weight
    short, cost = loss(measure(candidate, task.few), window, share), task.cost(task.few)
    if candidate.searcher != "paper" and not survives(short, finished):
        return Trial(number, candidate, short, None, cost)
    nll = measure(candidate, task.windows)
    each = tuple(weighted(nll, window, share)[:, 0].tolist())
    return Trial(
        number, candidate, short, loss(nll, window, share), cost + task.cost(task.windows), each
    )


def append(log: Path, trial: Trial) -> None:
    """A whole line, on the disk before the next trial starts."""
    with log.open("a") as file:
        file.write(json.dumps(asdict(trial)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(log: Path) -> list[Trial]:
    """Finished trials; a last line that was cut by a kill is taken off the file."""
    if not log.is_file():
        return []
    text = log.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        log.write_text(whole)
    return [_trial(json.loads(line)) for line in whole.splitlines()]


def _trial(row: dict[str, Any]) -> Trial:
    whole = row["whole"] and Loss(**row["whole"])
    short, each = Loss(**row["short"]), tuple(row["each"])
    return Trial(row["number"], Candidate(**row["candidate"]), short, whole, row["passes"], each)
