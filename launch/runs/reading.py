"""One run's folder to its row: what its files and locks say, and nothing that they do not."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from ropewalk.conf.artifacts.folders import shortened
from ropewalk.conf.artifacts.locks import is_held
from ropewalk.conf.artifacts.workspace import temporary_folder
from ropewalk.conf.errors import STOPPED
from ropewalk.launch.check.line import FAIL
from ropewalk.launch.cluster import attempts
from ropewalk.launch.environment.disks import is_network
from ropewalk.launch.pipeline.order import FOLDERS, ORDER, VERB_STAGES
from ropewalk.launch.runs import files, following, page, training
from ropewalk.train.launcher import failure
from ropewalk.train.results import METRICS_FILE

REPORT, CHECK = "report/index.html", "check/check.json"


class Row(TypedDict):
    """One run. None: its files do not say."""

    name: str
    state: str  # running, submitted, finished, failed, stopped, interrupted, unknown, broken
    reason: str  # of failed, unknown and broken, and what else is to be said
    stage: str  # that is at work, or was when the run ended; the last one of a finished run
    phase: str  # of several: `1/2 (short)`
    step: int | None
    steps: int | None
    loss: float | None
    step_time_s: float | None  # median of the last steps
    left_s: float | None  # of a running training: steps that are left x step_time_s
    checkpoint: str | None
    written: str  # UTC, the last write that shows
    folder: str
    report: str | None
    next: str


EMPTY: dict[str, Any] = {
    **dict.fromkeys(("reason", "stage", "phase", "written", "next"), ""),
    **dict.fromkeys(("step", "steps", "loss", "step_time_s", "left_s", "checkpoint", "report")),
}
ELSEWHERE = "on a network's disk: that no process of another machine is at work is not certain"
UNFIT = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""Errors of files that cannot be read, and of values that are not what a run writes."""


def row(run: Path) -> Row:
    """The row of a run's folder; of one that cannot be read, with the reason."""
    result = Row(**{key: EMPTY.get(key) for key in Row.__annotations__})  # type: ignore[typeddict-item]
    result["name"], result["folder"], result["state"] = run.name, str(run), "broken"
    try:
        if run.is_dir():
            _fill(result, _Look(run))
        else:
            result["reason"] = "a link that leads nowhere"
    except UNFIT as error:
        result["state"], result["reason"] = "broken", _text(error)
    return result


def _text(error: Exception) -> str:
    if not isinstance(error, OSError) or error.filename is None:
        return f"a file is not what ropewalk wrote ({type(error).__name__}: {error})"
    return f"{Path(os.fsdecode(error.filename)).name} cannot be read: {error.strerror}"


class _Look:
    """What the files of one run say. Raises: those of UNFIT."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.training = training.of(run)
        self.record = files.record(run / "manifest.json")
        self.words = following.words_of((self.record or {}).get("command"))
        self.done = {
            stage
            for stage, folder in FOLDERS.items()
            if stage != "train" and files.stage_manifest(run / folder) is not None
        }
        self.done |= {"rope"} if (run / "rope.json").is_file() else set()
        self.done |= {"train"} if self.training.is_finished else set()
        self.former = page.former_stages(run)

    def shown(self) -> set[str]:
        """The finished stages, without a page of former results."""
        return self.done - {"report"} if self.former else self.done

    def stages(self) -> list[str]:
        """The stages of the recorded command, in order."""
        stages = VERB_STAGES[self.words[0]] if self.words else ()
        return [stage for stage in stages if stage != "train" or self.trains()]

    def trains(self) -> bool:
        """Whether the run is to have a training: not one that measures other models alone."""
        if "train" in self.done:
            return True
        evaluation = files.settings(self.run / "config.yaml").get("eval")
        return not (isinstance(evaluation, dict) and evaluation.get("run_models") is False)

    def unfinished(self) -> list[str]:
        """Stages that began and did not end, and stages of the command that did not begin."""
        begun = [s for s, f in FOLDERS.items() if temporary_folder(self.run / f).is_dir()]
        begun += ["train"] if self.training.folder.is_dir() else []
        stages = dict.fromkeys([*(s for s in FOLDERS if s in begun), *self.stages()])
        return [stage for stage in stages if stage not in self.done]

    def written(self) -> str:
        """The last change of what a run writes, as ISO 8601."""
        folder = self.training.folder
        paths = [self.run, self.run / "config.yaml", self.run / "manifest.json", folder]
        paths += [folder / METRICS_FILE, *(self.run / name for name in FOLDERS.values())]
        paths += [temporary_folder(self.run / name) for name in FOLDERS.values()]
        times = [path.stat().st_mtime for path in paths if path.exists()]
        return datetime.fromtimestamp(max(times), UTC).isoformat(timespec="seconds")


def _fill(result: Row, look: _Look) -> None:
    trained, unfinished = look.training, look.unfinished()
    state, reason = _state(look, unfinished)
    reasons = (reason, trained.problem, page.is_former(look.former))
    result["state"], result["reason"] = state, "; ".join(filter(None, reasons))
    result["written"], result["phase"] = look.written(), trained.phase
    result["step"], result["steps"] = trained.step, trained.steps
    result["loss"], result["step_time_s"] = trained.loss, trained.step_s
    result["checkpoint"] = trained.checkpoint
    report = look.run / REPORT
    result["report"] = str(report) if report.is_file() else None
    last = next((stage for stage in reversed(ORDER) if stage in look.shown()), "")
    result["stage"] = last if state == "finished" else next(iter(unfinished), last)
    if trained.is_held:
        result["stage"], result["left_s"] = "train", trained.left_s
    result["next"] = _next(look, state)


def _next(look: _Look, state: str) -> str:
    name = str((look.record or {}).get("name", look.run.name))
    if state == "finished":
        return following.after(look.words, look.run, name, look.shown(), look.trains())
    ended = state in ("failed", "stopped", "interrupted")
    return following.again(look.words, look.run, name) if ended else ""


def _state(look: _Look, unfinished: list[str]) -> tuple[str, str]:
    """State and reason."""
    held = is_held(look.run)
    if held or look.training.is_held:
        return "running", ""
    if not (look.run / "config.yaml").is_file():
        return _without_settings(look.run)
    if look.record is None and os.path.lexists(look.run / "manifest.json"):
        return "broken", "manifest.json is not what ropewalk wrote"
    if look.record is not None and not unfinished:
        return "finished", ""
    if held is None or look.training.is_held is None:
        return "unknown", "whether a process is at work cannot be seen: its lock cannot be read"
    return _ended(look)


def _without_settings(run: Path) -> tuple[str, str]:
    """Of a folder in which no stage began."""
    submitted = files.record(run / attempts.FOLDER / attempts.SUBMITTED)
    if submitted is not None:
        *_, job = submitted["jobs"].values()
        return "submitted", f"job {job} of Slurm has begun no stage; squeue --job {job} says why"
    tested = f"; a self-test is in {CHECK}" if (run / CHECK).is_file() else ""
    return "broken", f"no run: it has no config.yaml{tested}"


def _ended(look: _Look) -> tuple[str, str]:
    """Of an unfinished run at which no process works: by the note of the rank that ended first."""
    for folder in (look.training.folder, temporary_folder(look.run / FOLDERS["eval"])):
        note = failure.read(folder) if (folder / failure.NOTE).is_file() else None
        if note is not None and note["exit_code"] == STOPPED:
            return "stopped", ""
        if note is not None:
            return "failed", shortened(" ".join(failure.text(note).split()), 300)
    reasons = [*_failed_checks(look), *([ELSEWHERE] if is_network(look.run) else [])]
    return "interrupted", "; ".join(reasons)


def _failed_checks(look: _Look) -> list[str]:
    """What its self-test, after which no training began, says."""
    if look.training.folder.is_dir() or look.training.is_finished:
        return []
    lines = files.values(look.run / CHECK).get("checks", [])
    failed = [line["name"] for line in lines if line["status"] == FAIL]
    return [f"the self-test failed: {', '.join(failed)} ({CHECK})"] if failed else []
