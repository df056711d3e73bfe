"""File locks on the folders of runs and of the cache."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.log import log


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


def lock_of(folder: Path) -> FileLock:
    """The lock file lies beside `folder`; the system releases it when its process dies.

    Raises: ConfigError for a folder in its stead.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.lock")
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
        with lock_of(run_dir / part).acquire(timeout=0):
            yield
    except Timeout:
        raise ConfigError(
            f"name is {run_dir.name}; another ropewalk is at work in that run; wait for it or "
            "give another name"
        ) from None
