"""How far a training is: phase, step, loss, seconds of a step, last checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ropewalk.conf import phases
from ropewalk.conf.artifacts.locks import is_held
from ropewalk.conf.artifacts.manifest import CONTENT_FILE
from ropewalk.conf.artifacts.workspace import temporary_folder
from ropewalk.launch.runs import files
from ropewalk.train.checkpoint import storage
from ropewalk.train.results import METRICS_FILE

FOLDER = "train"


@dataclass
class Training:
    """A training as its folder shows it. None: its files do not say."""

    folder: Path
    """`train` of a finished one, else `train.tmp`."""
    phase: str
    """`1/2 (short)`; empty without phases."""
    is_held: bool | None
    """Whether its first rank is at work."""
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    step_s: float | None = None
    """Seconds of a step: the median of the last ones."""
    checkpoint: str | None = None
    problem: str = ""

    @property
    def is_finished(self) -> bool:
        return self.folder.name == FOLDER

    @property
    def left_s(self) -> float | None:
        """Seconds of the steps that are left."""
        if self.steps is None or self.step_s is None:
            return None
        return (self.steps - (self.step or 0)) * self.step_s


def of(run: Path) -> Training:
    """The training of a run: of its first phase that is not finished, else of the last.

    Raises: OSError.
    """
    *_, last = folders = phase_folders(run)
    current = next((f for f in folders if files.stage_manifest(f / FOLDER) is None), last)
    return _read(current, _title(current, folders.index(current) + 1, len(folders)))


def phase_folders(run: Path) -> list[Path]:
    """The folders of the run's phases in order; the last phase is the run itself."""
    parent = run / phases.FOLDER
    earlier = [path for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []
    return [*sorted(earlier, key=lambda path: _number(path.name)), run]


def _number(name: str) -> int:
    digits = name.partition("-")[0]
    return int(digits) if digits.isdecimal() else 0


def _title(folder: Path, number: int, count: int) -> str:
    if count == 1:
        return ""
    name = folder.name.partition("-")[2] if number < count else ""
    return f"{number}/{count}" + (f" ({name})" if name else "")


def _read(folder: Path, phase: str) -> Training:
    finished = files.stage_manifest(folder / FOLDER)
    temporary = temporary_folder(folder / FOLDER)
    training = Training(folder / FOLDER if finished else temporary, phase, is_held(temporary))
    if finished:
        training.steps = _steps(finished.content)
    elif (started := files.record(temporary / CONTENT_FILE)) is not None:
        training.steps = _steps(started["content"])
    try:
        _take_lines(training, files.last_lines(training.folder / METRICS_FILE))
    except ValueError as error:
        training.problem = str(error)
    checkpoints = training.folder / "checkpoints"
    training.checkpoint = next((name for name, _ in storage.iter_checkpoints(checkpoints)), None)
    return training


def _steps(content: dict[str, Any]) -> int | None:
    steps = content.get("train", {}).get("steps")
    return steps if isinstance(steps, int) else None


def _take_lines(training: Training, lines: list[dict[str, Any]]) -> None:
    """Take the last step; a step whose batch was left out has no loss."""
    seconds = [line["step_time_s"] for line in lines if "step_time_s" in line]
    losses = [line["loss"] for line in lines if line.get("loss") is not None]
    training.step = lines[-1]["step"] if lines else None
    training.loss = losses[-1] if losses else None
    training.step_s = median(seconds) if seconds else None
