"""The content of files as sha256, and a record that saves reading an unchanged file again.

A digest is recorded with the file's inode, size, and times of modification and status
change. No program can set the time of status change (`ctime`): every write, rename and `os.utime`
moves it. Two writes may fall within one tick of the file system's clock, so a file is read only
after the tick of its last change.
"""

import hashlib
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from ropewalk.conf.artifacts.disk import explain_full_disk
from ropewalk.conf.artifacts.locks import wait_for_lock
from ropewalk.conf.artifacts.records import UNREADABLE, fingerprint, read_json, write_json
from ropewalk.conf.log import log

FINE_TICK = 20_000_000  # nanoseconds; Linux stamps files with a clock that ticks every 1 to 10 ms
COARSE_TICK = 2_000_000_000  # file systems that keep whole seconds; FAT keeps even ones
ANNOUNCED_BYTES = 1 << 30  # more is announced, because reading takes seconds

Entry = tuple[str, str]  # what `_stamp` returns, and the digest; each may be empty
UNREAD: Entry = "", ""


def file_digest(path: Path) -> str:
    """sha256 of the whole file, read in blocks. Raises: OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digests(folder: Path, names: Iterable[str], cache: Path) -> dict[str, str]:
    """sha256 of files of `folder`, by name, without the files that cannot be read.

    A file is read once, until it changes. The record lies in `cache/digests`, one file a folder.
    Raises: ConfigError when the disk of the cache is full.
    """
    record = cache / "digests" / f"{fingerprint(str(folder.resolve()))[:16]}.json"
    stamps = {name: _stamp(folder / name) for name in names}
    entries = _read(record)
    if _changed(stamps, entries):
        with explain_full_disk(record), wait_for_lock(record, f"digests of {folder.name}"):
            entries = _read(record)  # another process may have read the files meanwhile
            entries |= _digests(folder, _changed(stamps, entries))
            _write(record, {n: e for n, e in entries.items() if e[0] and (folder / n).exists()})
    return {name: entries[name][1] for name in stamps if entries[name][1]}


def recorded_digests(folder: Path, names: Iterable[str], record: Path) -> dict[str, str]:
    """As `file_digests`, with the record at a path of its own. The caller holds the folder's lock.

    Where no record can be written, the files are read each time.
    """
    stamps, entries = {name: _stamp(folder / name) for name in names}, _read(record)
    if changed := _changed(stamps, entries):
        entries |= _digests(folder, changed)
        with suppress(OSError):
            _write(record, {name: entries[name] for name in stamps if entries[name][0]})
    return {name: entries[name][1] for name in stamps if entries[name][1]}


def _stamp(path: Path) -> str:
    """What changes with the file's content, as far as the file system can tell; else empty."""
    try:
        stat = path.stat()
    except OSError:
        return ""
    values = stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
    return " ".join(map(str, values))


def _changed(stamps: dict[str, str], entries: dict[str, Entry]) -> list[str]:
    recorded = {name: entries.get(name, UNREAD)[0] for name in stamps}
    return [name for name, stamp in stamps.items() if not stamp or recorded[name] != stamp]


def _digests(folder: Path, names: list[str]) -> dict[str, Entry]:
    """Read the files side by side: hashing releases the interpreter's lock."""
    size = sum((folder / name).stat().st_size for name in names if (folder / name).is_file())
    if size > ANNOUNCED_BYTES:
        log.info(f"read {size / 1e9:.1f} GB of {folder.name}: its content is its identity (once)")
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(names, pool.map(_entry, [folder / name for name in names]), strict=True))


def _entry(path: Path) -> Entry:
    """The file's stamp and digest. The stamp is empty when it proves nothing: a file that changes
    while it is read, or was changed in the future of this machine's clock."""
    try:
        settled = _wait_for_next_tick(path.stat().st_ctime_ns)
        before, digest = _stamp(path), file_digest(path)
    except OSError:
        return UNREAD
    return (before if settled and before == _stamp(path) else ""), digest


def _wait_for_next_tick(changed: int) -> bool:
    """Wait until a later write would get a later time than `changed`, in nanoseconds.

    Returns False for a time in the future, as of a file server whose clock is ahead.
    """
    tick = FINE_TICK if changed % 1_000_000_000 else COARSE_TICK
    age = time.time_ns() - changed
    if 0 <= age <= tick:
        time.sleep((tick - age) / 1e9)
    return age >= 0


def _read(record: Path) -> dict[str, Entry]:
    """The entries; none when the file is missing, or is not what `_write` wrote."""
    try:
        content = read_json(record)
        files, expected = content["files"], content["fingerprint"]
    except (*UNREADABLE, KeyError, TypeError):
        return {}
    return {n: (s, d) for n, (s, d) in files.items()} if fingerprint(files) == expected else {}


def _write(record: Path, entries: dict[str, Entry]) -> None:
    files = {name: list(entry) for name, entry in entries.items()}
    write_json(record, {"fingerprint": fingerprint(files), "files": files})
