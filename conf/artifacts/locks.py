"""File locks on the folders of runs and of the cache."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.log import log

LOOK_S = 0.2
"""In which a look lets go of a lock. It asks for it, shared, and gives it back at once."""


@contextmanager
def wait_for_lock(folder: Path, stage: str) -> Iterator[None]:
    """Hold the lock of `folder`; log a line before waiting for another process."""
    lock = lock_of(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("%s: another run is making it; waiting", stage)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def lock_path(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def is_held(folder: Path) -> bool | None:
    """Whether a process holds the lock of `folder`, as far as the file system tells; None where it
    does not tell. Nothing is written.
    """
    try:
        descriptor = os.open(lock_path(folder), os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        return False if error.errno == errno.ENOENT else None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(descriptor)  # which gives the lock back
    return False


def lock_of(folder: Path) -> FileLock:
    """The lock file lies beside `folder`; the system releases it when its process dies.

    Raises: ConfigError for a folder in its stead.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = lock_path(folder)
    if path.is_dir():
        raise ConfigError(
            f"{path} is a folder; the lock of {folder.name} must be a file; remove {path}"
        )
    return FileLock(path)


@contextmanager
def lock_or_refuse(run_dir: Path, part: str = "") -> Iterator[None]:
    """Hold the lock of a run's folder, or of a part of it.

    Two commands in one folder would overwrite each other's settings.
    Raises: ConfigError when another process holds the lock.
    """
    try:
        with lock_of(run_dir / part).acquire(timeout=LOOK_S):
            yield
    except Timeout:
        raise ConfigError(
            f"name is {run_dir.name}; another ropewalk is at work in that run; wait for it or "
            "give another name"
        ) from None
