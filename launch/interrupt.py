"""Ctrl-C ends a command within seconds, also within a long call of a compiled library."""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ropewalk.conf.errors import STOPPED

GRACE_S = 3.0
"""Seconds for Python to end the command by itself, with its handlers."""

STDERR = 2
LAST_WORDS: list[Callable[[], None]] = []
"""Called before the process is ended, by whom the end of a command concerns."""
STOPPED_LINE = "stopped; run the same command again: finished stages are kept"


@contextmanager
def bounded_interrupt(grace_s: float = GRACE_S) -> Iterator[None]:
    """Let SIGINT and SIGTERM raise KeyboardInterrupt, and end the process `grace_s` later at the
    latest.

    Python's handler runs between two instructions of the main thread, and a tokenizer that trains
    in Rust has none for minutes. Stages write to temporary folders, so this loses no more than the
    handler would. A stage that handles the signals itself (training) keeps them to itself.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(receiver, grace_s), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        sender.close()


def _watch(receiver: socket.socket, grace_s: float) -> None:
    with receiver:
        while received := receiver.recv(64):
            if any(_raises(number) for number in received):
                time.sleep(grace_s)
                # a thread that still computes would hold up the interpreter's own end too
                for call in LAST_WORDS:
                    call()
                os.write(STDERR, f"{STOPPED_LINE}\n".encode())
                os._exit(STOPPED)


def _raises(number: int) -> bool:
    """Whether the signal raises KeyboardInterrupt: no stage handles it, and it is not ignored, as
    SIGINT is in a shell's background jobs."""
    watched = number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    return watched and signal.getsignal(number) is signal.default_int_handler
