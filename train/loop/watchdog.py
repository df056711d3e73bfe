"""End a run that hangs, and name the rank that holds it up.

Ranks wait for one another in a collective for ever, whatever the reason. A thread of each rank
checks whether its training moves on and writes that to a file; the file of a stopped process does
not change.
"""

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ropewalk.conf.artifacts.manifest import read_json, write_json
from ropewalk.conf.errors import FAILED
from ropewalk.train.zero.mesh import Mesh

POLL_S = 5.0  # at most, between two polls

Report = dict[str, Any] | None
"""A rank's file: its `Heartbeat` and the number of polls; None before its first poll."""


class Heartbeat(NamedTuple):
    """How far a rank is: its step (from 0), how many of its phases are done, and the last of them.

    `moved` counts other work, such as files of a checkpoint. It shows that a rank moves on, but not
    which rank is behind.
    """

    step: int
    done: int
    phase: str = ""
    moved: int = 0


def stalled_ranks(earlier: Mapping[int, Report], now: Mapping[int, Report]) -> dict[int, str]:
    """The ranks that the others wait for, and how far they are. `earlier`: two polls ago.

    They are the ranks whose watchdog stopped updating its file; if all are alive, the ranks
    furthest behind.
    """
    unresponsive = {
        rank: f"it was last seen {_position(report)}, and its process does not answer"
        for rank, report in now.items()
        if report is None or report == earlier.get(rank)
    }
    if unresponsive:
        return unresponsive
    progress = {rank: (report["step"], report["done"]) for rank, report in now.items() if report}
    furthest_behind = min(progress.values())
    behind = [rank for rank, done in progress.items() if done == furthest_behind]
    return {rank: f"it is {_position(now[rank])}" for rank in behind}


def _position(report: Report) -> str:
    if report is None:
        return "before its first step"
    phase = f"after its {report['phase']}" if report["phase"] else "at its start"
    return f"at step {report['step'] + 1}, {phase}"


class HangWatchdog:
    """One rank's thread, while open. It calls `heartbeat`, which must not wait for anything."""

    def __init__(
        self, folder: Path, mesh: Mesh, timeout_s: float, heartbeat: Callable[[], Heartbeat]
    ) -> None:
        self.folder, self.rank, self.world_size = folder, mesh.rank, mesh.world_size
        self.timeout_s, self.heartbeat = timeout_s, heartbeat
        self.polls = 0
        self.closed = threading.Event()

    def __enter__(self) -> "HangWatchdog":
        if self.timeout_s:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file(self.rank).unlink(missing_ok=True)
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()

    def _watch(self) -> None:
        """Ends the process on its own errors too: a run without a watchdog could hang for ever."""
        try:
            self._poll_until_closed(min(POLL_S, self.timeout_s / 4))
        except Exception:
            message = f"rank {self.rank}: the watchdog of train.launcher.hang_timeout_s failed"
            _end_process(f"{message}:\n{traceback.format_exc()}")

    def _poll_until_closed(self, interval: float) -> None:
        last, since = self.heartbeat(), time.monotonic()
        while not self.closed.wait(interval):
            now = self.heartbeat()
            if now != last:
                last, since = now, time.monotonic()
            self._write(now)
            if time.monotonic() - since > self.timeout_s:
                self._report_hang(interval)

    def _write(self, heartbeat: Heartbeat) -> None:
        self.polls += 1
        try:
            write_json(self._file(self.rank), {**heartbeat._asdict(), "polls": self.polls})
        except OSError:  # a full disk is no hang; this rank's file gets old and is reported so
            return

    def _report_hang(self, interval: float) -> None:
        """Report by the lowest rank that is alive, and exit; the launcher then ends the others.

        Every stalled rank also prints its stack.
        """
        earlier = self._read_all()
        until = time.monotonic() + 3 * interval
        while time.monotonic() < until:
            time.sleep(interval / 2)
            self._write(self.heartbeat())
        stalled = stalled_ranks(earlier, self._read_all())
        alive = [rank for rank in range(self.world_size) if rank not in stalled]
        lines = []
        if self.rank == min(alive, default=min(stalled)):
            lines = [
                f"rank {rank} holds the others up for {self.timeout_s:.0f} s "
                f"(train.launcher.hang_timeout_s): {state}"
                for rank, state in stalled.items()
            ]
        if lines or self.rank in stalled:
            lines.append(f"rank {self.rank} is here:\n{_main_thread_stack()}")
        # the other ranks must not see this file as old before they have reported
        _end_process("\n".join(lines), delay_s=2 * interval)

    def _read_all(self) -> dict[int, Report]:
        return {rank: self._read(rank) for rank in range(self.world_size)}

    def _read(self, rank: int) -> Report:
        try:
            return read_json(self._file(rank))  # type: ignore[no-any-return]
        except (OSError, ValueError):
            return None

    def _file(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.json"


def _main_thread_stack() -> str:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return "its main thread is gone" if frame is None else "".join(traceback.format_stack(frame))


def _end_process(message: str, delay_s: float = 0.0) -> None:
    try:
        print(message, file=sys.stderr, flush=True)
        time.sleep(delay_s)
    finally:  # even if stderr is closed
        os._exit(FAILED)
