"""The first of several commands that a launcher started: it leads, and the others start ranks.

It runs every stage. Before the first one all others must have come, with equal facts and the same
disks; during its stages they wait for its messages, in no collective. `follower.py` is their side.
"""

import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ropewalk.conf.errors import FAILED, STOPPED, ConfigError, RopewalkError
from ropewalk.train.launcher import layout
from ropewalk.train.launcher.layout import Introduction, Layout
from ropewalk.train.launcher.peers import Message, Peers
from ropewalk.train.launcher.world import World

SILENT_HOST_S = 20
"""After which a machine that no longer answers, as one without power, counts as dead."""
GRACE_S = 12.0
"""For the ranks to name the one that died, before they are ended without a name."""
FAREWELL_S = 1.5
"""For the others to read why they end."""
MAIN_THREAD_S = 2.0
"""For the main thread to end its stage when another machine is lost."""
DISK_S = 15.0
"""In which a new file must be seen by all; clients of NFS ask again after seconds."""


class Leader:
    """Process 0's connections to the others, from `gather` to `end`."""

    def __init__(self, world: World, own: Introduction) -> None:
        self.world = world
        self.introductions: dict[int, Introduction] = {0: own}
        self.layout = Layout(((own["host"], (0,)),))
        self.peers = Peers(0, SILENT_HOST_S)
        self.answers: dict[int, Message] = {}
        self.codes: dict[int, int] = {}
        """Exit codes of the ranks that the others started last, as far as they have ended."""
        self.lost = ""
        """Which machine was lost, and how."""
        self.on_stop: Callable[[], None] | None = None
        """While ranks run: asks them to stop in good order."""
        self.kill_ranks: Callable[[], None] | None = None
        self.deadline: float | None = None
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="other nodes", daemon=True)
        self.port = self._listen()

    def _listen(self) -> int:
        """Raises: ConfigError when no port is free."""
        tried = self.world.ports
        for port in tried:
            try:
                self.peers.listen(port, self.world.job, self.world.size)
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                continue
            return port
        where = f"{self.introductions[0]['host']}:{tried[0]}"
        raise ConfigError(
            f"launch.port is {tried[0]}; the commands of all machines meet at {where}, which "
            f"cannot be opened ({reason}); set launch.port to a free one"
        )

    # -- before the stages

    def gather(self, timeout_s: float, max_nodes: int | None, folders: Sequence[Path]) -> None:
        """Wait for all; then they, and the disks of `folders`, must agree.

        Raises: ConfigError that names those that did not come, or what differs.
        """
        until = time.monotonic() + timeout_s
        while len(self.introductions) < self.world.size and time.monotonic() < until:
            for process, message in self.peers.receive(min(1.0, until - time.monotonic())):
                self._take_introduction(process, message)
        if missing := [n for n in range(self.world.size) if n not in self.introductions]:
            raise ConfigError(self._did_not_come(missing, timeout_s))
        self.layout = layout.of(self.introductions)
        layout.refuse_unequal(self.introductions, self.layout)
        if max_nodes is not None and self.layout.nodes != max_nodes:
            raise ConfigError(
                f"launch.nodes is {max_nodes}; {self.world.launcher} started this command on "
                f"{self.layout.nodes}; the numbers must be equal; correct one"
            )
        self._refuse_separate_disks(folders)
        self.thread.start()

    def _take_introduction(self, process: int, message: Message | None) -> None:
        if message is None:
            gone = self.introductions.pop(process, {"host": "?"})
            raise RopewalkError(f"process {process} on {gone['host']} ended while others came")
        if "joined" not in message:
            self._take(process, message)
            return
        if process in self.introductions or not 0 < process < self.world.size:
            raise ConfigError(
                f"two commands are process {process} of {self.world.launcher}: on "
                f"{self.introductions.get(process, {'host': '?'})['host']} and {message['host']}; "
                "each needs a number of its own; correct the variables"
            )
        self.introductions[process] = message
        self.peers.send({"welcome": True})

    def _did_not_come(self, missing: list[int], timeout_s: float) -> str:
        by_node = self.world.nodes == self.world.size
        numbers = ", ".join(map(str, missing[: layout.SHOWN]))
        here = ", ".join(
            dict.fromkeys(introduction["host"] for introduction in self.introductions.values())
        )
        listed = f" (of {self.world.names})" if self.world.names else ""
        return (
            f"launch.join_timeout_s is {timeout_s:g}; {'node' if by_node else 'process'} "
            f"{numbers}{listed} did not come to {self.world.address}:{self.port} in that time; "
            f"{here} did; look at the messages of the others, or raise it"
        )

    def _refuse_separate_disks(self, folders: Sequence[Path]) -> None:
        """Raises: ConfigError when a machine does not see a new file of the first."""
        files = [folder / f".nodes-{secrets.token_hex(6)}" for folder in folders]
        try:
            for file in files:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
            self.answers.clear()
            self.peers.send({"see": [str(file.resolve()) for file in files], "within_s": DISK_S})
            self._receive_answers(DISK_S + SILENT_HOST_S)
        finally:
            for file in files:
                file.unlink(missing_ok=True)
        for process, answer in self.answers.items():
            if unseen := [files[n].parent for n, seen in enumerate(answer["seen"]) if not seen]:
                raise ConfigError(
                    f"runs_dir and cache_dir must be on disks that all machines share; "
                    f"{self.layout.name(process)} does not see what {self.layout.name(0)} writes "
                    f"into {unseen[0]}; name shared folders"
                )

    def _receive_answers(self, timeout_s: float) -> None:
        until = time.monotonic() + timeout_s
        while len(self.answers) < self.world.size - 1 and time.monotonic() < until:
            for process, message in self.peers.receive(1.0):
                if message is None:
                    raise RopewalkError(f"{self.layout.name(process)} ended at the start")
                self._take(process, message)

    # -- during the stages

    def start(self, message: Mapping[str, Any], kill_ranks: Callable[[], None]) -> None:
        """Let every other process start ranks, as `ranks.start_here` reads it.

        `kill_ranks`: ends those of this machine, where others are lost and nothing else does.
        """
        self.codes.clear()
        self.deadline, self.kill_ranks = None, kill_ranks
        self.peers.send({"start": {**message, "layout": self.layout.hosts}})

    def code_of(self, own: int) -> int:
        """The exit code of all ranks, once those here have ended with `own`: of the first that
        failed. Raises: RopewalkError when a machine was lost."""
        until = time.monotonic() + GRACE_S
        while len(self.codes) < self.world.size - 1 and not self.lost and time.monotonic() < until:
            time.sleep(0.05)
        failed = [code for code in self.codes.values() if code]
        is_ended_here = own < 0 and own != -signal.SIGTERM
        return failed[0] if failed and (own == 0 or is_ended_here) else own

    def end(self, code: int, reason: str) -> None:
        """Let the others end with `code` and say `reason`; once."""
        if self.closed.is_set():
            return
        self.closed.set()
        self.peers.wake()
        if self.thread.is_alive() and threading.current_thread() is not self.thread:
            self.thread.join(2.0)
        self._say_farewell(code, reason)
        self.peers.close()

    def _say_farewell(self, code: int, reason: str) -> None:
        self.peers.send({"end": code, "reason": reason, "by": self.layout.name(0)})
        until = time.monotonic() + FAREWELL_S
        while self.peers.connections and time.monotonic() < until:
            for _ in self.peers.receive(0.1):  # what is not read would reset the connection
                continue

    # -- the thread

    def _watch(self) -> None:
        """Ends the command on its own errors too: it would wait for ever for a lost machine."""
        try:
            self._receive_until_closed()
        except Exception as error:
            if not self.closed.is_set():
                self.lost = f"the connection to the other machines failed ({error!r})"
                self._interrupt()

    def _receive_until_closed(self) -> None:
        while not self.closed.is_set():
            for process, message in self.peers.receive(0.5):
                if message is None:
                    self._lose(process)
                else:
                    self._take(process, message)
            if self.deadline is not None and time.monotonic() > self.deadline:
                self.deadline = None
                if (kill := self.kill_ranks) is not None:
                    kill()
                elif self.lost:
                    self._interrupt()

    def _take(self, process: int, message: Message) -> None:
        if "seen" in message:
            self.answers[process] = message
        elif "ended" in message:
            self.codes[process] = message["ended"]
            if message["ended"] and self.deadline is None:
                self.deadline = time.monotonic() + GRACE_S
        elif "stop" in message:
            self._stop(process)

    def _stop(self, process: int) -> None:
        """Another process got a signal to stop. A launcher may send it to all, this one too."""
        if (stop := self.on_stop) is not None:
            stop()
        else:
            _say(f"{self.layout.name(process)} was asked to stop; all stop")
            _interrupt_main_thread()

    def _lose(self, process: int) -> None:
        """A connection that closed. Ranks that run have time to say more."""
        self.lost = f"{self.layout.name(process)} ended without a message"
        running = self.kill_ranks is not None
        self.deadline = time.monotonic() + (GRACE_S if running else 0.0)

    def _interrupt(self) -> None:
        """End a stage of the main thread, which may be in a long call."""
        self.peers.send({"end": FAILED, "reason": self.lost, "by": self.layout.name(0)})
        _say(f"{self.lost}; all end; run the same command again to resume")
        _interrupt_main_thread()
        if not self.closed.wait(MAIN_THREAD_S):
            os._exit(FAILED)


def _interrupt_main_thread() -> None:
    """As a signal does, which wakes it from a wait too: `launch.interrupt` makes SIGTERM raise
    KeyboardInterrupt; a shell may let a background job ignore SIGINT."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _say(line: str) -> None:
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


_open: list[Leader] = []


def current() -> Leader | None:
    """The leader of this process while others follow it."""
    return _open[-1] if _open else None


def lead(leader: Leader, body: Callable[[], None]) -> None:
    """Run `body`, and let the others end as it does.

    Raises: what `body` does; RopewalkError when another machine was lost meanwhile.
    """
    _open.append(leader)
    code, reason = FAILED, "it ended by an error; see its messages"
    try:
        body()
        code, reason = 0, ""
    except KeyboardInterrupt:
        code, reason = (FAILED, leader.lost) if leader.lost else (STOPPED, "it was stopped")
        if leader.lost:
            raise RopewalkError(f"{leader.lost}; run the same command again to resume") from None
        raise
    except RopewalkError as error:
        code, reason = error.exit_code, str(error)
        raise
    finally:
        _open.remove(leader)
        leader.end(code, reason)
