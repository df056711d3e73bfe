"""The runs of a folder: as rows, for a terminal."""

import math
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ropewalk.conf.artifacts.folders import RUNS_DIR, SWEEPS
from ropewalk.conf.errors import ConfigError
from ropewalk.launch.runs import reading, sweeps
from ropewalk.launch.runs.reading import Row

COLUMNS = ("name", "state", "stage", "step", "loss", "s/step", "left", "checkpoint", "written")


def rows(folder: str) -> list[Row]:
    """A row for each run and each sweep in `folder`, the last written first; an empty text is the
    default.

    Raises: ConfigError when there is no such folder.
    """
    path = Path(os.path.expanduser(folder or RUNS_DIR))
    if not path.is_dir():
        if not folder and not os.path.lexists(path):
            return []
        raise ConfigError(
            f"FOLDER is {path}; it must be a folder with runs; name the runs_dir of your runs"
        )
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise ConfigError(
            f"FOLDER is {path}; it must be a folder that can be read ({error.strerror}); give "
            "this user the right to it"
        ) from None
    listed = [path / name for name in names if not name.startswith(".") and name != SWEEPS]
    result = [reading.row(run) for run in listed if run.is_dir() or run.is_symlink()]
    result += sweeps.rows(path)
    return sorted(result, key=lambda row: row["written"], reverse=True)


def as_text(folder: str, listed: Sequence[Row]) -> str:
    """A table, with a line below each run that has a reason or a next command."""
    if not listed:
        return f"no runs in {folder or RUNS_DIR}"
    cells = [COLUMNS, *map(_cells, listed)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_line(cells[0], widths)]
    for row, line in zip(listed, cells[1:], strict=True):
        lines.append(_line(line, widths))
        lines += [f"    {label}: {row[label]}" for label in ("reason", "next") if row[label]]  # type: ignore[literal-required]
        if row["state"] == "finished" and row["report"]:
            lines.append(f"    page: {row['report']}")
    return "\n".join(_printable(line) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cells(row: Row) -> tuple[str, ...]:
    step = "-" if row["step"] is None else f"{row['step']:,}"
    if row["steps"] is not None:
        step = f"{step}/{row['steps']:,}"
    return (
        row["name"],
        row["state"],
        f"{row['stage'] or '-'} {row['phase']}".rstrip(),
        step,
        "-" if row["loss"] is None else f"{row['loss']:.4f}",
        "-" if row["step_time_s"] is None else f"{row['step_time_s']:.2f}",
        "-" if row["left_s"] is None else duration(row["left_s"]),
        row["checkpoint"] or "-",
        _local(row["written"]),
    )


def duration(seconds: float) -> str:
    """`50 s`, `12 min`, `3 h 20 min`, `4 d 6 h`."""
    if not math.isfinite(seconds):
        return "-"
    minutes = round(seconds / 60)
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _local(written: str) -> str:
    """In the time of this machine."""
    if not written:
        return "-"
    return datetime.fromisoformat(written).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _printable(line: str) -> str:
    """Names of files may hold line breaks, and bytes that are no text."""
    return "".join(c if c.isprintable() else "?" for c in line)
