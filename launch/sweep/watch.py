"""How far the runs at work are, and the time left: told while a sweep waits for them."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ropewalk.conf.artifacts.folders import shortened
from ropewalk.launch.runs import reading
from ropewalk.launch.runs.listing import duration
from ropewalk.launch.sweep.record import WAITING, SweepRecord

LOOK_S, LINE_S = 2.0, 60.0
"""Between two looks on a terminal, where one line is written over; elsewhere, between two lines."""
CLEAR = "\r\033[K"


@dataclass
class Watch:
    """A thread that looks into the folders of the runs; it works for any pool."""

    record: SweepRecord
    runs_dir: Path
    size: int
    """Jobs at once."""
    ended: list[float] = field(default_factory=list)
    """Seconds of the runs that ended well in this command."""
    _end: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def shown(self) -> Iterator[None]:
        thread = threading.Thread(target=self._work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def _work(self) -> None:
        terminal = sys.stderr.isatty()
        while not self._end.wait(LOOK_S if terminal else LINE_S):
            line = self.line()
            print(f"{CLEAR}{line[:150]}" if terminal else line, end="" if terminal else "\n",
                  file=sys.stderr, flush=True)  # fmt: skip
        if terminal:
            print(CLEAR, end="", file=sys.stderr, flush=True)

    def tell(self, line: str) -> None:
        """A line that stays."""
        print(f"{CLEAR if sys.stderr.isatty() else ''}{line}", flush=True)

    def line(self) -> str:
        """`at work: demo-pi (train 40/160); 3 of 21 ended; about 20 min left`."""
        runs = self.record.runs
        waiting = [job for job in self.record.jobs if job.state == WAITING]
        folders = dict.fromkeys(job.run for job in waiting)
        rows = [reading.row(self.runs_dir / run) for run in folders]
        at_work = [row for row in rows if row["state"] == "running"]
        ended = sum(job.state != WAITING for job in runs)
        parts = [f"at work: {', '.join(map(_stage, at_work))}"] if at_work else []
        parts.append(f"{ended} of {len(runs)} ended")
        if (left := self.left()) is not None:
            parts.append(f"about {duration(left)} left")
        return "; ".join(parts)

    def left(self) -> float | None:
        """Seconds, by the mean of the runs that ended; None before one did."""
        waiting = sum(job.state == WAITING for job in self.record.runs)
        if not self.ended or not waiting:
            return None
        rounds = -(-waiting // self.size)
        return rounds * sum(self.ended) / len(self.ended)


def _stage(row: reading.Row) -> str:
    step = f" {row['step']}/{row['steps']}" if row["stage"] == "train" and row["step"] else ""
    return f"{row['name']} ({row['stage'] or 'begins'}{step})"


def why_failed(run: Path, log: Path | None) -> str:
    """The error of the rank that failed first, else the last line that the job printed."""
    row = reading.row(run)
    if row["state"] == "failed" and row["reason"]:
        return row["reason"]
    lines = log.read_text(errors="replace").split("\n") if log and log.is_file() else []
    return shortened(next((line.strip() for line in reversed(lines) if line.strip()), ""), 300)
