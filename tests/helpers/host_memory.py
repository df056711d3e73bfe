"""The anonymous host memory of this process while something runs."""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Growth:
    """MiB above the start: the highest so far, and at the end. Mapped files do not count."""

    highest: float = 0.0
    after: float = 0.0


@contextmanager
def anonymous_growth() -> Iterator[Growth]:
    m_mmap_threshold = -3  # freed memory goes back to the system at once
    ctypes.CDLL(None).mallopt(m_mmap_threshold, 1 << 16)
    start, growth, done = _anonymous_mib(), Growth(), threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            growth.highest = max(growth.highest, _anonymous_mib() - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield growth
    finally:
        done.set()
        watcher.join()
        growth.after = _anonymous_mib() - start


def _anonymous_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in lines)["RssAnon"].split()[0]) / 1024
