"""A command that another one leads: it waits, starts the ranks of its machine when told to, and
ends as the leader does. `leader.py` is the other side."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ropewalk.conf.errors import FAILED, STOPPED, ConfigError, RopewalkError
from ropewalk.train.launcher.layout import Introduction, Layout
from ropewalk.train.launcher.leader import GRACE_S, SILENT_HOST_S
from ropewalk.train.launcher.peers import Message, Peers
from ropewalk.train.launcher.world import World

STRANGER_S = 25.0
"""For an answer from whoever listens at the leader's port."""
CONNECT_S = 5.0
RETRY_S = 0.2
POLL_S = 0.1
STOP_S = 25.0
"""After a signal to stop, for the leader to end all."""

Starter = Callable[[Mapping[str, Any], Layout], subprocess.Popen[bytes]]


class Follower:
    """One process that follows; `start`: starts ranks here as a message of the leader says."""

    def __init__(self, world: World, own: Introduction, start: Starter) -> None:
        self.world, self.own, self.start = world, own, start
        self.peers = Peers(world.rank, SILENT_HOST_S)
        self.process: subprocess.Popen[bytes] | None = None
        self.early: list[Message | None] = []
        """What came with the welcome."""
        self.stop_until: float | None = None
        self.stop_sent = False
        self.leader = f"{world.address}"

    def follow(self, timeout_s: float) -> int:
        """Until the leader ends; returns its exit code. Raises: ConfigError when it does not come
        in `timeout_s`."""
        with self._stop_signals():
            self._join(timeout_s)
            try:
                while True:
                    for message in self._receive():
                        if (code := self._take(message)) is not None:
                            return code
                    self._report_ended_ranks()
                    self._pass_on_stop()
                    if self.stop_until is not None and time.monotonic() > self.stop_until:
                        return STOPPED
            finally:
                self._kill()
                self.peers.close()

    def _join(self, timeout_s: float) -> None:
        """Connect to the leader, which may start later than this process. Raises: ConfigError."""
        until, reason = time.monotonic() + timeout_s, "nobody came"
        asked: dict[int, tuple[Peers, float]] = {}
        """Connections by port, whose other end has not answered, and until when it may."""
        try:
            while time.monotonic() < until:
                for port in [port for port in self.world.ports if port not in asked]:
                    try:
                        asked[port] = self._ask(port), time.monotonic() + STRANGER_S
                    except OSError as error:
                        reason = os.strerror(error.errno) if error.errno else str(error)
                if self._is_welcome(asked):
                    return
                if any(time.monotonic() > strange for _, strange in asked.values()):
                    reason = "whoever answers there is not this run's first command"
                    if len(self.world.ports) == 1:
                        break
                if self.stop_until is not None:
                    raise KeyboardInterrupt
                time.sleep(RETRY_S)
        finally:
            for peers, _ in asked.values():
                peers.close()
        raise ConfigError(self._did_not_come(reason))

    def _ask(self, port: int) -> Peers:
        """Raises: OSError."""
        connection = socket.create_connection((str(self.world.address), port), CONNECT_S)
        peers = Peers(self.world.rank, SILENT_HOST_S)
        peers.join(connection, self.world.job, dict(self.own))
        return peers

    def _is_welcome(self, asked: dict[int, tuple[Peers, float]]) -> bool:
        """Whether the leader has answered. Others close the connection, or say nothing."""
        for port, (peers, _) in list(asked.items()):
            messages = [message for _, message in peers.receive(RETRY_S)]
            if any(message and {"welcome", "end"} & message.keys() for message in messages):
                self.peers.close()
                self.peers, self.early = peers, messages
                del asked[port]
                return True
            if not peers.connections:
                peers.close()
                del asked[port]
        return False

    def _did_not_come(self, reason: str) -> str:
        ports = "-".join(map(str, sorted({self.world.ports[0], self.world.ports[-1]})))
        return (
            f"launch.address is {self.world.address}; the first command must listen there at port "
            f"{ports}, and did not ({reason}); look at its messages, and set launch.address to a "
            "name or an address by which this machine reaches it, or launch.port to a free port"
        )

    # -- messages

    def _receive(self) -> list[Message | None]:
        early, self.early = self.early, []
        wait_s = 0.0 if early else POLL_S if self.process else 1.0
        return early + [message for _, message in self.peers.receive(wait_s)]

    def _take(self, message: Message | None) -> int | None:
        """The exit code where it is the end."""
        if message is None:
            return self._end_without_leader()
        if "end" in message:
            return self._end(message)
        if "see" in message:
            self.peers.send({"seen": _seen(message["see"], message["within_s"])})
        if "start" in message:
            hosts = tuple((host, tuple(p)) for host, p in message["start"]["layout"])
            self._start(message["start"], Layout(hosts))
        return None

    def _start(self, message: Message, layout: Layout) -> None:
        self.leader = layout.name(0)
        try:
            interface = self.peers.interface()
            self.process = self.start({**message, "interface": interface}, layout)
        except (OSError, RopewalkError) as error:
            _say(f"{layout.name(self.world.rank)}: its ranks did not start: {error}")
            self.peers.send({"ended": FAILED})

    def _report_ended_ranks(self) -> None:
        if self.process is not None and (code := self.process.poll()) is not None:
            self.process = None
            self.peers.send({"ended": code if code >= 0 else 256 + code})

    def _end(self, message: Message) -> int:
        code = int(message["end"])
        if self.process is not None:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE_S if code else None)
        if code:
            verb = "stopped" if code == STOPPED else "ended"
            _say(f"{message['by']} {verb} with exit code {code}: {message['reason']}")
        return code

    def _end_without_leader(self) -> int:
        """Its connection closed without a message; the ranks here notice the same by themselves."""
        if self.process is not None:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE_S)
        _say(f"{self.leader} ended without a message; this command ends too")
        return FAILED

    # -- signals

    @contextmanager
    def _stop_signals(self) -> Iterator[None]:
        """The first one asks all to stop in good order, the second ends the ranks here at once."""

        def request(*_: object) -> None:
            if self.stop_until is not None:
                self._kill()
                return
            # ranks that run stop after their step, whose length is theirs
            self.stop_until = float("inf") if self.process else time.monotonic() + STOP_S
            self.peers.wake()

        numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        former = {number: signal.signal(number, request) for number in numbers}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    def _pass_on_stop(self) -> None:
        """A handler may not send: it may come within another message."""
        if self.stop_until is not None and not self.stop_sent:
            self.stop_sent = True
            self.peers.send({"stop": True})

    def _kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _seen(paths: list[str], within_s: float) -> list[bool]:
    until = time.monotonic() + within_s
    while not all(os.path.exists(path) for path in paths) and time.monotonic() < until:
        for path in paths:  # a client of NFS asks again for a folder that is listed
            with suppress(OSError):
                os.listdir(Path(path).parent)
        time.sleep(0.2)
    return [os.path.exists(path) for path in paths]


def _say(line: str) -> None:
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)
