"""Connections from every rank to rank 0, over which ranks tell how far they are and that they end.
Those of commands on several machines to the first (launcher/leader.py) are the same.

The system closes a killed process's connection at once, and keeps asking a host that says nothing;
so a death is known without a message, and a process that is only busy or stopped is no death.
"""

import json
import os
import secrets
import selectors
import socket
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a command that only waits for another loads no torch
    import torch.distributed as dist

SILENT_HOST_S = 60
"""After which a host that no longer answers, as one without power, counts as dead."""
SEND_TIMEOUT_S = 5.0
KEY = "peers"

Message = dict[str, Any]


class Peers:
    """Rank 0's connections to all others; another rank's to rank 0. Used by one thread."""

    def __init__(self, rank: int, silent_host_s: int = SILENT_HOST_S) -> None:
        self.rank, self.silent_host_s = rank, silent_host_s
        self.connections: dict[int, socket.socket] = {}
        self.selector = selectors.DefaultSelector()
        self.buffers: dict[socket.socket, bytes] = {}
        self.listener: socket.socket | None = None
        self.token = ""
        self.wake_receiver, self.wake_sender = socket.socketpair()
        self.wake_receiver.setblocking(False)
        self.selector.register(self.wake_receiver, selectors.EVENT_READ)

    @classmethod
    def connect(cls, store: "dist.Store | None", rank: int, world_size: int) -> "Peers":
        """`store`: tells rank 0's port to the others; None for a rank alone."""
        peers = cls(rank)
        if store is None or world_size == 1:
            return peers
        if rank == 0:
            peers.listen(0, secrets.token_hex(16), world_size)
            assert peers.listener is not None
            store.set(KEY, json.dumps([peers.listener.getsockname()[1], peers.token]))
        else:
            port, token = json.loads(store.get(KEY))
            address = (os.environ["MASTER_ADDR"], port)
            peers.join(socket.create_connection(address, timeout=SILENT_HOST_S), token, {})
        return peers

    def listen(self, port: int, token: str, backlog: int) -> None:
        """`port`: 0 for any. Raises: OSError when it is in use."""
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        self.listener = socket.create_server(
            ("", port), family=family, dualstack_ipv6=dual, backlog=backlog
        )
        self.token = token
        self.selector.register(self.listener, selectors.EVENT_READ)

    def join(self, connection: socket.socket, token: str, content: Message) -> None:
        """Introduce this rank to rank 0, with `content` beside its number."""
        self._add(connection, 0)
        self.send({"rank": self.rank, "token": token, **content})

    def interface(self) -> str:
        """The name of the interface of this machine that a connection here goes by; empty for
        none, and for one inside the machine."""
        import psutil

        for connection in self.connections.values():
            own = connection.getsockname()[0].removeprefix("::ffff:").partition("%")[0]
            for name, addresses in psutil.net_if_addrs().items():
                if own in [one.address for one in addresses]:
                    return "" if ip_address(own).is_loopback else name
        return ""

    def _add(self, connection: socket.socket, rank: int | None) -> None:
        connection.settimeout(SEND_TIMEOUT_S)
        for level, option, value in _keep_asking(self.silent_host_s):
            connection.setsockopt(level, option, value)
        self.buffers[connection] = b""
        self.selector.register(connection, selectors.EVENT_READ)
        if rank is not None:
            self.connections[rank] = connection

    def wake(self) -> None:
        """Let `receive` return, from another thread."""
        with suppress(OSError):
            self.wake_sender.send(b"\0")

    def send(self, message: Message) -> None:
        """To every rank connected here. What cannot be sent shows as a closed connection."""
        line = json.dumps(message).encode() + b"\n"
        for connection in [*self.connections.values()]:
            with suppress(OSError):
                connection.sendall(line)

    def receive(self, timeout_s: float) -> Iterator[tuple[int, Message | None]]:
        """What arrives within `timeout_s`, by rank; None: its connection is closed."""
        for key, _ in self.selector.select(max(0.0, timeout_s)):
            if key.fileobj is self.wake_receiver:
                self.wake_receiver.recv(1024)
            elif key.fileobj is self.listener:
                self._add(self.listener.accept()[0], None)
            else:
                yield from self._read(key.fileobj)  # type: ignore[arg-type]

    def _read(self, connection: socket.socket) -> Iterator[tuple[int, Message | None]]:
        try:
            data = connection.recv(1 << 16)
        except OSError:
            data = b""
        *lines, rest = (self.buffers[connection] + data).split(b"\n")
        self.buffers[connection] = rest
        for line in lines:
            rank = self._rank_of(connection)
            if rank is not None:
                try:
                    yield rank, json.loads(line)
                except ValueError:  # whoever listened at rank 0's port
                    data = b""
            elif (message := self._introduce(connection, line)) is not None:
                yield message.pop("rank"), {"joined": True, **message}
            else:
                data = b""
        if not data:
            rank = self._rank_of(connection)
            self._remove(connection)
            if rank is not None:
                yield rank, None

    def _rank_of(self, connection: socket.socket) -> int | None:
        return next((r for r, known in self.connections.items() if known is connection), None)

    def _introduce(self, connection: socket.socket, line: bytes) -> Message | None:
        """A connection's first line; None for what is none of our ranks, as a scan of ports, which
        is dropped."""
        try:
            message: Message = json.loads(line)
            rank = message["rank"] = int(message["rank"])
            if not secrets.compare_digest(message.pop("token"), self.token):
                return None
        except (ValueError, KeyError, TypeError):
            return None
        self.connections[rank] = connection
        return message

    def _remove(self, connection: socket.socket) -> None:
        self.selector.unregister(connection)
        del self.buffers[connection]
        self.connections = {r: c for r, c in self.connections.items() if c is not connection}
        connection.close()

    def close(self) -> None:
        for connection in [*self.buffers]:
            self._remove(connection)
        for other in (self.wake_receiver, self.wake_sender, self.listener):
            if other is not None:
                other.close()
        self.selector.close()


def _keep_asking(silent_host_s: int) -> Iterator[tuple[int, int, int]]:
    """Options of a connection whose other host is asked six times in `silent_host_s`."""
    yield socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1
    every = silent_host_s // 6
    seconds = {"TCP_KEEPIDLE": every, "TCP_KEEPINTVL": every, "TCP_KEEPCNT": 5}
    for name, value in {**seconds, "TCP_USER_TIMEOUT": silent_host_s * 1000}.items():
        if hasattr(socket, name):
            yield socket.IPPROTO_TCP, getattr(socket, name), value
