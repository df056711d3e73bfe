"""A run that hangs says which rank holds it up, and ends.

Ranks that wait for one another in a collective wait for ever, whatever the reason. Each has a thread that looks whether its training gets
on, and leaves word of that in a file; the files of a stopped or dead process do not change.
"""

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ropewalk.conf.artifacts.manifest import read_json, write_json
from ropewalk.conf.errors import FAILED

POLL_S = 5.0  # at most between two looks


class Heartbeat(NamedTuple):
    """How far a rank is: the step it is at (from 0), how many of its phases are done, and the last of them.

    `moved` counts what else it has done and others have not, so that it tells that a rank gets on and not which is behind.
    """

    step: int
    done: int
    phase: str = ""
    moved: int = 0


def stalled_ranks(before: dict[int, Any], now: dict[int, Any]) -> dict[int, str]:
    """Ranks that the others wait for, and how they are. `before`, `now`: what each rank's file said, two looks apart.

    Those whose process does not even look any more; when all do, those that are furthest behind.
    """
    dumb = {rank: said for rank, said in now.items() if said is None or said == before.get(rank)}
    if dumb:
        return {
            rank: f"it was last seen {_at(said)}, and its process does not answer"
            for rank, said in dumb.items()
        }
    least = min((said["step"], said["done"]) for said in now.values())
    return {
        rank: f"it is {_at(said)}"
        for rank, said in now.items()
        if (said["step"], said["done"]) == least
    }


def _at(said: Any) -> str:
    if said is None:
        return "before its first step"
    where = f"after its {said['phase']}" if said["phase"] else "at its begin"
    return f"at step {said['step'] + 1}, {where}"


class HangWatchdog:
    """One rank's thread. `place` is asked from it, so it must not wait for anything."""

    def __init__(
        self,
        folder: Path,
        rank: int,
        world_size: int,
        limit_s: float,
        place: Callable[[], Heartbeat],
    ) -> None:
        self.folder, self.rank, self.world_size, self.limit_s, self.place = (
            folder,
            rank,
            world_size,
            limit_s,
            place,
        )
        self.looks, self.main = 0, threading.main_thread().ident
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def __enter__(self) -> "HangWatchdog":
        if self.limit_s:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file(self.rank).unlink(missing_ok=True)
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()

    def _look(self) -> None:
        every = min(POLL_S, self.limit_s / 4)
        last, since = self.place(), time.monotonic()
        while not self.ended.wait(every):
            now = self.place()
            if now != last:
                last, since = now, time.monotonic()
            self._say(now)
            if time.monotonic() - since > self.limit_s:
                self._end(every)

    def _say(self, place: Heartbeat) -> None:
        self.looks += 1
        try:
            write_json(self._file(self.rank), {**place._asdict(), "looks": self.looks})
        except OSError:  # a full disk is no hung rank: this rank's word is old then, and the report says so of it
            return

    def _end(self, every: float) -> None:
        """Tell once, by the lowest rank that can; every rank that is behind shows where; and out, which the launcher notices."""
        before = self._all()
        until = time.monotonic() + 3 * every
        while time.monotonic() < until:
            time.sleep(every / 2)
            self._say(self.place())
        behind = stalled_ranks(before, self._all())
        teller = min(
            (rank for rank in range(self.world_size) if rank not in behind), default=min(behind)
        )
        lines = [
            f"rank {rank} holds the others up for {self.limit_s:.0f} s (train.launcher.hang_timeout_s): {how}"
            for rank, how in behind.items()
            if self.rank == teller
        ]
        if self.rank == teller or self.rank in behind:
            lines.append(f"rank {self.rank} is here:\n{self._stack()}")
        print("\n".join(lines), file=sys.stderr, flush=True)
        # the others' last looks must not find this one's file old before they have told
        time.sleep(2 * every)
        os._exit(FAILED)

    def _stack(self) -> str:
        frame = sys._current_frames().get(self.main or 0)
        return (
            "".join(traceback.format_stack(frame))
            if frame is not None
            else "its main thread is gone"
        )

    def _all(self) -> dict[int, Any]:
        return {rank: self._read(rank) for rank in range(self.world_size)}

    def _read(self, rank: int) -> Any:
        try:
            return read_json(self._file(rank))
        except (OSError, ValueError):
            return None

    def _file(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.json"
