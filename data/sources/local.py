"""A source on this machine's disks. Links are read where they stay inside the source's folder, and else told, unless the settings
name the link itself or say to follow."""

import hashlib
import os
import stat
import sysconfig
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from ropewalk.conf.errors import DataError
from ropewalk.data.sources import globs
from ropewalk.data.sources.units import File, Found

STDLIB = "python:stdlib"
_EDGE = 64 << 10  # bytes at either end of a file


@dataclass(frozen=True)
class Local:
    base: Path
    follow_links: bool = False

    def open(self, name: str) -> BinaryIO:
        return (self.base / name).open("rb")

    def arrow(self, name: str) -> Any:
        """For Arrow's readers: mapped, so that what is passed over is not read."""
        return pa.memory_map(str(self.base / name))

    def refusal(self, name: str) -> str | None:
        """Why a path is not read, if so."""
        path = self.base / name
        try:
            name.encode()
            if not (path.resolve().is_relative_to(self.base.resolve()) or self.follow_links):
                return "link leaves the folder" + ("" if path.is_dir() else " (see follow_links)")
        except UnicodeEncodeError:
            return "file name is not UTF-8"
        except (OSError, RuntimeError):  # RuntimeError: a loop, before Python 3.13
            return "unreadable"
        if path.is_dir():
            return "link to a folder"
        return (
            "not a regular file" if path.exists() and not path.is_file() else None
        )  # a pipe would wait for ever


def find(address: str, without: Set[str], follow_links: bool = False) -> Found:
    """What a path, a folder (without those of these names in it) or a glob holds. Raises: DataError for a locked folder."""
    path = Path(sysconfig.get_paths()["stdlib"] if address == STDLIB else address).expanduser()
    if path.is_dir():
        place = Local(path, follow_links)
        return Found(place, "folder", _files(place, "**", without))
    if path.exists() or path.is_symlink():
        place = Local(
            path.parent, follow_links=True
        )  # the settings name the link, so they mean what it leads to
        return Found(place, "file", [_file(place, path)])
    if not globs.is_glob(address):
        return Found(Local(path.parent), "", [])
    base, glob = globs.split(str(path))
    place = Local(Path(base), follow_links)
    return Found(place, "glob", _files(place, glob, frozenset()))


def _files(place: Local, glob: str, without: Set[str]) -> list[File]:
    return sorted(
        (_file(place, path) for path in _walk(place.base, glob, without)),
        key=lambda file: file.name,
    )


def _file(place: Local, path: Path) -> File:
    name = path.relative_to(place.base).as_posix()
    try:
        found = path.stat()
    except OSError:  # a link to nowhere, or in a loop: refused when it is read
        return File(name, 0, None)
    if stat.S_ISDIR(found.st_mode):
        return File(name, 0, None, folder=True)
    if path.is_symlink() and place.refusal(name):  # what is not read decides nothing
        return File(name, 0, None)
    return File(name, found.st_size, _stamp(path, found))


def _stamp(path: Path, found: os.stat_result) -> int | str:
    """When a file was changed, nanoseconds. Whole seconds may be a made time: archives under SOURCE_DATE_EPOCH, image layers and
    package stores give one to all their files, and another text of the same size would pass for the old one. Then the file's ends
    are looked at too."""
    if found.st_mtime_ns % 1_000_000_000 or not stat.S_ISREG(found.st_mode):
        return found.st_mtime_ns
    try:
        with path.open("rb") as file:
            digest = hashlib.blake2b(file.read(_EDGE), digest_size=16)
            file.seek(max(_EDGE, found.st_size - _EDGE))
            digest.update(file.read(_EDGE))
    except OSError:  # refused when it is read
        return found.st_mtime_ns
    return f"{found.st_mtime_ns} {digest.hexdigest()}"


def _walk(base: Path, glob: str, without: Set[str]) -> Iterator[Path]:
    """Files that match, and links to folders, which are not followed (no loops) but told. Raises: DataError for a folder
    that is locked."""

    def locked(error: OSError) -> None:
        name = Path(error.filename).relative_to(base).as_posix()
        raise DataError(
            f"folder {name} is locked; every folder of a source must be readable; change its rights or move it"
        )

    for folder, folders, names in os.walk(base, onerror=locked if base.is_dir() else None):
        here = Path(folder)
        inside = [here / f for f in folders if not f.startswith(".") and f not in without]
        wanted = [
            path for path in inside if globs.may_hold(path.relative_to(base).as_posix(), glob)
        ]
        folders[:] = sorted(path.name for path in wanted)
        yield from (path for path in wanted if path.is_symlink())
        for path in (here / n for n in names if not n.startswith(".")):
            if globs.matches(path.relative_to(base).as_posix(), glob):
                yield path
