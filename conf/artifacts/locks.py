""""""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ropewalk.conf.errors import ConfigError


@contextmanager
def wait_for_lock(folder: Path, stage: str) -> Iterator[None]:
    """Hold the lock of `folder`; says so when it has to wait for another process."""
    lock = lock_of(folder)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{stage}: another run is making it; waiting")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def lock_of(folder: Path) -> FileLock:
    """Beside `folder`, not in it; the system lets go of it when its process dies."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(folder.with_name(f".{folder.name}.lock"))


@contextmanager
def lock_or_refuse(run_dir: Path, part: str = "") -> Iterator[None]:
    """Hold a run's folder, or a part of it: two commands in one would overwrite each other's settings. Raises: ConfigError."""
    try:
        with lock_of(run_dir / part).acquire(timeout=0):
            yield
    except Timeout:
        raise ConfigError(
            f"name is {run_dir.name}; another ropewalk is at work in that run; wait for it or give another name"
        ) from None
