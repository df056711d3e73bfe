"""Trials that Optuna's pruner gives up are asked to stop while they train."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.workspace import temporary_folder
from ropewalk.launch.runs.files import all_lines
from ropewalk.launch.sweep.study import Study
from ropewalk.train.launcher.ranks import STOP_FILE
from ropewalk.train.results import METRICS_FILE

LOOK_S = 2.0
"""Between two looks."""


@contextlib.contextmanager
def pruning(
    study: Study, trial_of: Mapping[Path, Any], steps: int, pruned: set[int]
) -> Iterator[None]:
    """A thread that looks at the trainings. `trial_of`: by the folder of its run; `pruned`: takes
    the numbers of those that were asked to stop."""
    if study.settings.pruner == "none":
        yield
        return
    over = threading.Event()

    def work() -> None:
        while not over.wait(LOOK_S):
            for run, trial in trial_of.items():
                if trial.number not in pruned and prune(study, trial, run, steps):
                    pruned.add(trial.number)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def prune(study: Study, trial: Any, run: Path, steps: int) -> bool:
    """Look at one training; whether it was asked to stop in good order. It is asked by a file in
    its folder, which works on whatever machine it runs."""
    temporary = temporary_folder(run / "train")
    if not temporary.is_dir():
        return False
    lines = all_lines(temporary / METRICS_FILE)
    losses = {line["step"]: line["loss"] for line in lines if line.get("loss") is not None}
    if not study.is_pruned(trial, losses, steps):
        return False
    (temporary / STOP_FILE).touch()
    return True
