"""End a run in which a rank hangs or died, and name the rank, its host and where it was.

Ranks wait for one another in a collective for ever, whatever the reason. A thread of each tells
rank 0's how far its rank is (launcher/peers.py); rank 0's decides, and tells the others.
"""

import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch.distributed as dist
from torch import nn

from ropewalk.conf.errors import FAILED, STOPPED
from ropewalk.train.launcher import failure
from ropewalk.train.launcher.peers import Message, Peers
from ropewalk.train.loop.progress import Beat, Heartbeat, Phase, stalled_ranks
from ropewalk.train.zero import rendezvous
from ropewalk.train.zero.params import model_bytes

POLL_S = 5.0
"""At most, between two messages of a rank."""
GRACE_S = 15.0
"""After a rank's error, for the others to end by the same error or to finish their messages."""
LOST_PEER_S = 3.0
"""In which the reason of a lost connection becomes known."""
READ_BYTES_PER_S = 20e6
"""The slowest at which a model is read or written: a shared disk, with many nodes at it."""
STATE_BYTES = 16
"""Of a trained parameter in a checkpoint, at most."""
SETTING = "train.launcher.hang_timeout_s"


class Watchdog:
    """One rank's thread, while open, from its start to its end.

    `store`: of all ranks, None for a rank alone. `timeout_s`: 0 for none; deaths are noticed all
    the same.
    """

    def __init__(self, folder: Path, store: dist.Store | None, timeout_s: float) -> None:
        self.folder, self.timeout_s = folder, timeout_s or math.inf
        self.rank, self.world_size = rendezvous.rank_and_world_size()
        self.hosts = rendezvous.hosts(store, self.rank, self.world_size)
        self.interval = min(POLL_S, self.timeout_s / 4)
        self.current = Phase(0, "starting", self.timeout_s)
        self.last, self.since = (0, Heartbeat()), time.monotonic()
        self.beats: dict[int, Beat | None] = dict.fromkeys(range(self.world_size))
        self.heard: dict[int, float] = {}
        self.left: set[int] = set()
        self.cause: tuple[int, int, str, float] | None = None
        """Rank, exit code, what happened, and when the others end for it."""
        self.leaving: Message | None = None
        self.sent, self.closed = threading.Event(), threading.Event()
        self.peers = Peers.connect(store, self.rank, self.world_size)
        self.thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self.thread.start()
        _open.append(self)
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        _open.remove(self)
        self.leave(error)
        self.closed.set()
        self.peers.wake()
        self.thread.join(self.interval)
        self.peers.close()

    # -- the main thread

    @contextmanager
    def phase(
        self, name: str, extra_s: float = 0.0, heartbeat: Callable[[], Heartbeat] | None = None
    ) -> Iterator[None]:
        """`extra_s`: beyond the timeout, for what takes long without a sign of life. `heartbeat`
        must not wait for anything."""
        number = self.current.number + 1
        self.current = Phase(number, name, self.timeout_s + extra_s, heartbeat)
        self.peers.wake()
        try:
            yield
        except BaseException as error:
            self.leave(error)
            raise
        finally:
            self.current = self.current._replace(heartbeat=None)

    def leave(self, error: BaseException | None) -> None:
        """Tell the others that this rank ends, once; after a lost connection its reason may
        follow, and ends this process."""
        if self.leaving is not None:
            return
        code = 0 if error is None else getattr(error, "exit_code", FAILED)
        is_lost_peer = error is not None and failure.is_lost_peer(error)
        self.leaving = {"leaving": code, "lost_peer": is_lost_peer, "at": self.current.name}
        self.peers.wake()
        self.sent.wait(1.0)
        if is_lost_peer:
            time.sleep(LOST_PEER_S)

    # -- the thread

    def _watch(self) -> None:
        """Ends the process on its own errors too: a run without a watchdog could hang for ever."""
        try:
            self._poll_until_closed()
        except Exception:
            if not self.closed.is_set():
                message = f"rank {self.rank}: the watchdog of {SETTING} failed"
                _end_process(f"{message}:\n{traceback.format_exc()}", FAILED)

    def _poll_until_closed(self) -> None:
        due = 0.0
        while not self.closed.is_set():
            for rank, message in self.peers.receive(due - time.monotonic()):
                self._take(rank, message)
                if message is not None and "joined" in message:
                    due = 0.0  # it does not know yet how far this rank is
            if self.leaving is not None and not self.sent.is_set():
                self.peers.send(self.leaving)
                self.sent.set()
            if self.current.number != self.last[0] or time.monotonic() >= due:
                due = time.monotonic() + self.interval
                self._beat()
                self._judge()

    def _beat(self) -> None:
        phase, now = self.current, time.monotonic()
        heartbeat = phase.heartbeat() if phase.heartbeat is not None else Heartbeat()
        if (phase.number, heartbeat) != self.last:
            self.last, self.since = (phase.number, heartbeat), now
        position = heartbeat.position() if phase.heartbeat is not None else phase.name
        limit_s = phase.limit_s + heartbeat.extra_s
        overdue = now - self.since > limit_s
        beat = Beat(phase.number, *heartbeat[:2], position, limit_s, overdue)
        self.beats[self.rank], self.heard[self.rank] = beat, now
        if self.leaving is None:
            self.peers.send({"beat": beat})

    def _take(self, rank: int, message: Message | None) -> None:
        """A message of another rank, or the end of its connection."""
        if message is None:
            if rank not in self.left:
                self._end_after_death(rank)
        elif "beat" in message:
            self.beats[rank], self.heard[rank] = Beat(*message["beat"]), time.monotonic()
        elif "leaving" in message:
            self.left.add(rank)
            self._take_leave(rank, message)
        elif "end" in message:
            is_stalled = self.rank in message["stalled"]
            _end_process(self._stack() if is_stalled else "", message["end"])

    def _take_leave(self, rank: int, message: Message) -> None:
        code = message["leaving"]
        if code in (0, STOPPED):
            return
        if self.cause is None:
            state = f"failed {message['at']}; the ranks that wait for it are ended"
            self.cause = (rank, code, state, time.monotonic() + GRACE_S)

    def _judge(self) -> None:
        """End the run if it is time. Another rank than 0 does so only where rank 0 does not."""
        now = time.monotonic()
        if self.leaving is not None:  # this rank ends by itself
            return
        if self.cause is not None:
            rank, code, state, deadline = self.cause
            if now > deadline:
                self._end(f"{self._name(rank)} {state}", code, rank, {})
            return
        own = self.beats[self.rank]
        assert own is not None
        patience = 3 * self.interval
        if self.rank and own.overdue and now - self.since > own.limit_s + 3 * patience:
            self._end_after_hang(own.limit_s, {0})
        overdue = [beat.limit_s for beat in self.beats.values() if beat and beat.overdue]
        if self.rank == 0 and overdue:
            silent = {r for r in self.beats if now - self.heard.get(r, -math.inf) > patience}
            self._end_after_hang(min(overdue), silent)

    def _end_after_hang(self, limit_s: float, silent: set[int]) -> None:
        stalled = stalled_ranks({r: b for r, b in self.beats.items() if r not in self.left}, silent)
        lines = [
            f"{self._name(rank)} holds the others up for {limit_s:.0f} s ({SETTING}): {state}"
            for rank, state in stalled.items()
        ]
        self._end("\n".join([*lines, self._stack()]), FAILED, min(stalled), stalled)

    def _end_after_death(self, rank: int) -> None:
        """A closed connection without a message. A note says that the rank had an error."""
        note = failure.read(self.folder)
        beat = self.beats[rank]
        position = beat.position if beat else "before its first message"
        state = (
            f"ended without a message, last seen {position}; the system ends a process so when "
            "memory runs out (see dmesg there)"
        )
        if note is not None and note["rank"] != rank:
            state = f"ended because {failure.rank_name(note)} did"
        code = FAILED if note is None else int(note["exit_code"])
        self._end(f"{self._name(rank)} {state}", code, rank, {})

    def _end(self, line: str, code: int, rank: int, stalled: Mapping[int, str]) -> None:
        """Leave the note, let the lowest rank that is left say `line`, end all."""
        note = {"rank": rank, "host": self.hosts.get(rank, "?"), "exit_code": code, "error": line}
        failure.leave_note(note, self.folder)
        if self.rank == 0:
            self.peers.send({"end": code, "stalled": [*stalled]})
        is_first = self.rank == 0 or (self.rank == 1 and rank == 0)
        _print(line if is_first else "")
        until = time.monotonic() + LOST_PEER_S  # an answer that is not read resets a connection
        while self.peers.connections and time.monotonic() < until:
            for other, message in self.peers.receive(0.1):
                del other, message
        _end_process("", code)

    def _name(self, rank: int) -> str:
        return f"rank {rank} on {self.hosts.get(rank, '?')}"

    def _stack(self) -> str:
        return f"rank {self.rank} is here:\n{_main_thread_stack()}"


_open: list[Watchdog] = []


def phase(
    name: str, extra_s: float = 0.0, heartbeat: Callable[[], Heartbeat] | None = None
) -> AbstractContextManager[None]:
    """A phase of this process's rank, if it is watched. See `Watchdog.phase`."""
    return _open[-1].phase(name, extra_s, heartbeat) if _open else nullcontext()


def read_s(num_bytes: int) -> float:
    """Seconds in which so many bytes are read or written at the slowest."""
    return num_bytes / READ_BYTES_PER_S


def checkpoint_s(model: nn.Module, world_size: int) -> float:
    """Seconds in which a rank reads or writes its part of a checkpoint, and the weights, at the
    slowest."""
    parameters = model_bytes(model) / 2  # at most, in bf16
    return read_s(int(STATE_BYTES * parameters / world_size) + model_bytes(model))


def _main_thread_stack() -> str:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return "its main thread is gone" if frame is None else "".join(traceback.format_stack(frame))


def _print(message: str) -> None:
    if message:
        print(message, file=sys.stderr, flush=True)


def _end_process(message: str, code: int) -> None:
    try:
        _print(message)
    finally:  # even if stderr is closed
        os._exit(code)
