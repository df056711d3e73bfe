"""The sweeps of a folder of runs, each as a row: its steps are its runs."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from ropewalk.conf.artifacts.folders import SWEEPS
from ropewalk.conf.artifacts.locks import is_held
from ropewalk.launch.runs.reading import EMPTY, UNFIT, Row
from ropewalk.launch.sweep import record
from ropewalk.launch.sweep.record import FAILED, FINISHED, JobRecord, SweepRecord


def rows(runs_dir: Path) -> Iterator[Row]:
    """A row for each sweep."""
    parent = runs_dir / SWEEPS
    folders = sorted(parent.iterdir()) if parent.is_dir() else []
    for folder in folders:
        if folder.is_dir() and not folder.name.startswith("."):
            yield row(folder)


def row(folder: Path) -> Row:
    """The row of a sweep's folder; of one that cannot be read, with the reason."""
    result = Row(**{key: EMPTY.get(key) for key in Row.__annotations__})  # type: ignore[typeddict-item]
    result["name"], result["folder"] = f"{SWEEPS}/{folder.name}", str(folder)
    result["state"], result["reason"] = "broken", f"no sweep: it has no {record.FILE} of ropewalk's"
    try:
        if (sweep := record.read(folder)) is not None:
            _fill(result, sweep, folder)
    except UNFIT as error:
        result["reason"] = f"{record.FILE} cannot be read ({error})"
    return result


def _fill(result: Row, sweep: SweepRecord, folder: Path) -> None:
    runs, rest = sweep.runs, [job for job in sweep.jobs if job.state != FINISHED]
    failed = [job for job in rest if job.state == FAILED]
    result["stage"], result["steps"] = "sweep", len(runs)
    result["step"] = sum(job.state == FINISHED for job in runs)
    result["reason"] = _named("failed", failed) if failed else ""
    result["state"] = "failed" if failed else "interrupted" if rest else "finished"
    result["next"] = sweep.command if rest else ""
    if is_held(folder):
        result["state"], result["next"] = "running", ""
    page = folder / (sweep.comparison or "")
    result["report"] = str(page) if page.is_file() else None
    written = (folder / record.FILE).stat().st_mtime
    result["written"] = datetime.fromtimestamp(written, UTC).isoformat(timespec="seconds")


def _named(text: str, jobs: list[JobRecord], most: int = 5) -> str:
    names = [job.name for job in jobs]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)} {text}: {', '.join(names[:most])}{more}"
