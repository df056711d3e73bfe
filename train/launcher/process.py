"""How a command or a rank starts. Imports take most of the time to the first training step."""

import ctypes
import gc
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused_imports() -> Iterator[None]:
    """Import torch and transformers in here, once, without the garbage collector.

    Measured: a sixth of the import. The imported objects are left out of later collections too: 2
    CPU seconds at a process's end.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def without_package(name: str) -> Iterator[None]:
    """In here an import of `name` fails as if it were not installed; what is imported stays.

    DeepSpeed's tuner, which Ropewalk does not use, imports mlflow wherever it can: a second in each
    rank, and a variable of mlflow's in what the rank starts.
    """
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def die_with_parent() -> None:
    """Kill this process when its parent ends, so that no orphan shares a folder with a second
    start.

    Linux only; elsewhere the folder's lock alone keeps them apart.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def ignore_library_warnings() -> None:
    """Leave out what torch, DeepSpeed and transformers say about each other's code.

    A user can do nothing about a deprecated call in a library. Other warnings stay.
    """
    for category in (FutureWarning, DeprecationWarning, PendingDeprecationWarning):
        warnings.filterwarnings(
            "ignore", category=category, module=r"(torch|deepspeed|transformers|peft)(\.|$)"
        )
