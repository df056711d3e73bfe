"""Whether the run's folder is one folder for all ranks: seen, renamed and locked alike.

Each step ends in a barrier, so that all ranks do the same.
"""

import errno
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from ropewalk.launch.check.line import FAIL, Line
from ropewalk.launch.check.together import Ranks

SEEN_WITHIN_S = 5.0
RENAMES = 40
BLOCK = 1 << 16
RATE_BYTES = 32 << 20
LEAST_RATE = 20e6
"""Bytes a second: the slowest disk that the time-outs of saving and loading allow for
(`loop.watchdog.READ_BYTES_PER_S`)."""
NAME = "shared folder"


def shared_folder_lines(folder: Path, ranks: Ranks) -> list[Line]:
    """Collective. `folder`: empty or absent, on the disk of the run's folder."""
    problem = ranks.first(_problem_of(lambda: folder.mkdir(parents=True, exist_ok=True)))
    problem = problem or ranks.first(_problem_of(lambda: _write(folder / f"rank-{ranks.rank}")))
    lines: list[Line] = []
    for look in () if problem else (_seen, _rename, _lock, _rates):
        line, problem = look(folder, ranks)
        if problem:
            break
        lines.append(line)
    if problem:
        lines.append(Line(NAME, FAIL, problem, "writable on all ranks", _WRITABLE))
    return lines


Looked = tuple[Line, str]
"""A line, and what the system said where a file could not be written; on all ranks alike."""
_WRITABLE = (
    "make room there, or set runs_dir to a folder that every host may write to, mounted read-write"
)
_ONE_FOLDER = "set runs_dir to a folder on a disk that all hosts share"


def _problem_of(work: Callable[[], object]) -> str:
    """What the system says, and of which file; empty where nothing is wrong."""
    try:
        work()
    except OSError as error:
        return f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
    return ""


def _write(path: Path) -> None:
    path.write_bytes(os.urandom(16))


def _seen(folder: Path, ranks: Ranks) -> Looked:
    """Every rank looks for the files of all."""
    ranks.barrier()
    started, expected = time.monotonic(), {f"rank-{n}" for n in range(ranks.world_size)}
    while expected - set(os.listdir(folder)) and time.monotonic() - started < SEEN_WITHIN_S:
        time.sleep(0.02)
    missing = sorted(expected - set(os.listdir(folder)))
    problem = ranks.first(f"rank {ranks.rank} does not see {', '.join(missing)}" if missing else "")
    slowest = max(ranks.gather(time.monotonic() - started))
    line = Line.judged(
        "shared folder, a write seen",
        not problem,
        problem or f"all {ranks.world_size} files on all ranks after {slowest:.2f} s",
        f"within {SEEN_WITHIN_S:g} s",
        _ONE_FOLDER,
    )
    return line, ""


def _rename(folder: Path, ranks: Ranks) -> Looked:
    """Rank 0 replaces a file again and again; the others read it meanwhile."""
    target, torn, reads, problem = folder / "renamed", 0, 0, ""
    if ranks.rank == 0:
        problem = _problem_of(lambda: _replace(target, 0))
    ranks.barrier()
    for number in range(RENAMES):
        if ranks.rank == 0:
            problem = problem or _problem_of(partial(_replace, target, number))
        else:
            content = _content(target)
            torn += len(content) != BLOCK or len(set(content)) != 1
            reads += 1
    torn, reads = sum(ranks.gather(torn)), sum(ranks.gather(reads))
    line = Line.judged(
        "shared folder, rename",
        not torn,
        f"{torn} of {reads} reads beside {RENAMES} renames were torn or empty",
        "none: a rename must be seen in whole or not at all",
        "checkpoints are published by a rename; take another disk for runs_dir",
    )
    return line, ranks.first(problem)


def _replace(target: Path, number: int) -> None:
    new = target.with_suffix(".new")
    new.write_bytes(bytes([number]) * BLOCK)
    os.replace(new, target)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _lock(folder: Path, ranks: Ranks) -> Looked:
    """Rank 0 holds a lock while every rank tries to take it."""
    held, problem = FileLock(folder / "lock"), ""
    if ranks.rank == 0:
        problem = _problem_of(lambda: held.acquire(timeout=0))
    ranks.barrier()
    entered = _takes(FileLock(folder / "lock", is_singleton=False))
    entries = sum(ranks.gather(int(entered)))
    held.release()
    ranks.barrier()
    free_again = _takes(FileLock(folder / "lock")) if ranks.rank == 0 else True
    released = all(ranks.gather(free_again))
    value = f"{entries} of {ranks.world_size} ranks entered beside the holder"
    line = Line.judged(
        "shared folder, locks",
        not entries and released,
        value if released else f"{value}; the lock stayed after its release",
        "none",
        "two commands could overwrite one another; mount it with locks (NFS: without nolock; "
        "Lustre: flock)",
    )
    return line, ranks.first(problem)


def _takes(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    lock.release()
    return True


def _rates(folder: Path, ranks: Ranks) -> Looked:
    """Rank 0 writes to the disk and reads again, which may come from memory."""
    rates: list[float] = []
    problem = ""
    if ranks.rank == 0:
        problem = _problem_of(lambda: rates.extend(_write_and_read(folder / "rates")))
    problem = ranks.first(problem)
    write, read = ranks.gather(rates)[0] or (0.0, 0.0)
    line = Line.judged(
        "shared folder, rates",
        min(write, read) >= LEAST_RATE,
        f"written at {write / 1e6:,.0f} MB/s, read at {read / 1e6:,.0f} MB/s",
        f"at least {LEAST_RATE / 1e6:.0f} MB/s",
        "a checkpoint would take long; take a faster disk for runs_dir",
    )
    return line, problem


def _write_and_read(path: Path) -> tuple[float, float]:
    """Bytes a second. Raises: OSError, where other bytes come back too."""
    content = os.urandom(1 << 20) * (RATE_BYTES >> 20)
    started = time.monotonic()
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    written = time.monotonic()
    if path.read_bytes() != content:
        raise OSError(errno.EIO, "gave back other bytes than were written", str(path))
    end = time.monotonic()
    path.unlink()
    return RATE_BYTES / (written - started), RATE_BYTES / (end - written)
