"""How a command or a rank starts. What it imports is most of the way to the first training step."""

import ctypes
import gc
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused_imports() -> Iterator[None]:
    """Import torch and transformers in here, once: the collector rests, for it would go over what stays for good.

    Measured: a sixth of the import. What was loaded is left out of later rounds too: 2 CPU seconds at a process' end.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def die_with_parent() -> None:
    """Be killed when the process that started this one ends: what trains on without it would share its folder with a second start.

    Linux only; elsewhere the lock of the folder alone keeps them apart.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
