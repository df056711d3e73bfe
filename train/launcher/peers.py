"""Connections from every rank to rank 0, over which ranks tell how far they are and that they end.

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
from typing import Any

import torch.distributed as dist

SILENT_HOST_S = 60
"""After which a host that no longer answers, as one without power, counts as dead."""
SEND_TIMEOUT_S = 5.0
KEY = "peers"

Message = dict[str, Any]


class Peers:
    """Rank 0's connections to all others; another rank's to rank 0. Used by one thread."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.connections: dict[int, socket.socket] = {}
        self.selector = selectors.DefaultSelector()
        self.buffers: dict[socket.socket, bytes] = {}
        self.listener: socket.socket | None = None
        self.token = ""
        self.wake_receiver, self.wake_sender = socket.socketpair()
        self.wake_receiver.setblocking(False)
        self.selector.register(self.wake_receiver, selectors.EVENT_READ)

    @classmethod
    def connect(cls, store: dist.Store | None, rank: int, world_size: int) -> "Peers":
        """`store`: tells rank 0's port to the others; None for a rank alone."""
        peers = cls(rank)
        if store is None or world_size == 1:
            return peers
        if rank == 0:
            peers._listen(store, world_size)
        else:
            port, token = json.loads(store.get(KEY))
            address = (os.environ["MASTER_ADDR"], port)
            connection = socket.create_connection(address, timeout=SILENT_HOST_S)
            peers._add(connection, 0)
            peers.send({"rank": rank, "token": token})
        return peers

    def _listen(self, store: dist.Store, world_size: int) -> None:
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        self.listener = socket.create_server(
            ("", 0), family=family, dualstack_ipv6=dual, backlog=world_size
        )
        self.token = secrets.token_hex(16)
        self.selector.register(self.listener, selectors.EVENT_READ)
        store.set(KEY, json.dumps([self.listener.getsockname()[1], self.token]))

    def _add(self, connection: socket.socket, rank: int | None) -> None:
        connection.settimeout(SEND_TIMEOUT_S)
        for level, option, value in _keep_asking():
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
                yield rank, json.loads(line)
            elif (rank := self._introduce(connection, line)) is not None:
                yield rank, {"joined": True}
            else:
                data = b""
        if not data:
            rank = self._rank_of(connection)
            self._remove(connection)
            if rank is not None:
                yield rank, None

    def _rank_of(self, connection: socket.socket) -> int | None:
        return next((r for r, known in self.connections.items() if known is connection), None)

    def _introduce(self, connection: socket.socket, line: bytes) -> int | None:
        """The rank in a connection's first line; None for what is none of our ranks, as a scan of
        ports, which is dropped."""
        try:
            message = json.loads(line)
            rank = int(message["rank"])
            if not secrets.compare_digest(message["token"], self.token):
                return None
        except (ValueError, KeyError, TypeError):
            return None
        self.connections[rank] = connection
        return rank

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


def _keep_asking() -> Iterator[tuple[int, int, int]]:
    """Options of a connection whose other host is asked again and again, `SILENT_HOST_S` long."""
    yield socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1
    seconds = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": (SILENT_HOST_S - 10) // 10}
    for name, value in {**seconds, "TCP_USER_TIMEOUT": SILENT_HOST_S * 1000}.items():
        if hasattr(socket, name):
            yield socket.IPPROTO_TCP, getattr(socket, name), value
