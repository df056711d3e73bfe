"""A source on this machine's disks. Links are read where they stay inside the source's folder, and else told."""

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


@dataclass(frozen=True)
class Local:
    base: Path

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
            if not path.resolve().is_relative_to(self.base.resolve()):
                return "link leaves the folder"
        except UnicodeEncodeError:
            return "file name is not UTF-8"
        except (OSError, RuntimeError):  # RuntimeError: a loop, before Python 3.13
            return "unreadable"
        if path.is_dir():
            return "link to a folder"
        return "not a regular file" if path.exists() and not path.is_file() else None  # a pipe would wait for ever


def find(address: str, without: Set[str]) -> Found:
    """What a path, a folder (without those of these names in it) or a glob holds. Raises: DataError for a locked folder."""
    path = Path(sysconfig.get_paths()["stdlib"] if address == STDLIB else address).expanduser()
    if path.is_dir():
        return Found(Local(path), "folder", _files(path, "**", without))
    if path.exists() or path.is_symlink():
        return Found(Local(path.parent), "file", [_file(path.parent, path)])
    if not globs.is_glob(address):
        return Found(Local(path.parent), "", [])
    base, glob = globs.split(str(path))
    return Found(Local(Path(base)), "glob", _files(Path(base), glob, frozenset()))


def _files(base: Path, glob: str, without: Set[str]) -> list[File]:
    return sorted((_file(base, path) for path in _walk(base, glob, without)), key=lambda file: file.name)


def _file(base: Path, path: Path) -> File:
    name = path.relative_to(base).as_posix()
    try:
        found = path.stat()
    except OSError:  # a link to nowhere, or in a loop: refused when it is read
        return File(name, 0, None)
    if stat.S_ISDIR(found.st_mode):
        return File(name, 0, None, folder=True)
    return File(name, found.st_size, found.st_mtime_ns)


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
        wanted = [path for path in inside if globs.may_hold(path.relative_to(base).as_posix(), glob)]
        folders[:] = sorted(path.name for path in wanted)
        yield from (path for path in wanted if path.is_symlink())
        for path in (here / n for n in names if not n.startswith(".")):
            if globs.matches(path.relative_to(base).as_posix(), glob):
                yield path
