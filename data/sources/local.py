"""A source on this machine's disks.

A link is read when it stays inside the source's folder, when the settings name the link itself, or
with `follow_links`; any other link is refused and counted.
"""

import os
import stat
import sysconfig
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from ropewalk.conf.artifacts.digests import file_digests
from ropewalk.conf.errors import DataError
from ropewalk.data.sources import globs
from ropewalk.data.sources.units import File, PathMatch

STDLIB = "python:stdlib"


@dataclass(frozen=True)
class Local:
    base: Path
    follow_links: bool = False

    def open(self, name: str) -> BinaryIO:
        return (self.base / name).open("rb")

    def open_arrow(self, name: str) -> pa.NativeFile:
        """Memory-mapped, so that skipped parts are not read."""
        return pa.memory_map(str(self.base / name))

    def digests(self, files: Sequence[File], cache: Path) -> dict[str, str]:
        """sha256 of the files that are read, by name, recorded in `cache`.

        Times of files are no identity: archives, image layers and package stores give all their
        files one time of whole seconds, and a copy of a text may have another.
        """
        read = [file.name for file in files if not file.folder and not self.refusal(file.name)]
        return file_digests(self.base, read, cache)

    def refusal(self, name: str) -> str | None:
        """Why a path is not read; None when it is read."""
        path = self.base / name
        try:
            name.encode()
            if not (path.resolve().is_relative_to(self.base.resolve()) or self.follow_links):
                return "link leaves the folder" + ("" if path.is_dir() else " (see follow_links)")
        except UnicodeEncodeError:
            return "file name is not UTF-8"
        except (OSError, RuntimeError):  # RuntimeError: a loop of links, before Python 3.13
            return "unreadable"
        if path.is_dir():
            return "link to a folder"
        if path.exists() and not path.is_file():  # opening a pipe would block
            return "not a regular file"
        return None


def find(address: str, skip_folders: Set[str], follow_links: bool = False) -> PathMatch:
    """The files of a path, of a folder without `skip_folders`, or of a glob.

    Raises: DataError for a folder without read permission.
    """
    path = Path(sysconfig.get_paths()["stdlib"] if address == STDLIB else address).expanduser()
    if path.is_dir():
        location = Local(path, follow_links)
        return PathMatch(location, "folder", _files(location, "**", skip_folders))
    if path.exists() or path.is_symlink():
        location = Local(path.parent, follow_links=True)  # the settings name the link itself
        return PathMatch(location, "file", [_file(location, path)])
    if not globs.is_glob(address):
        return PathMatch(Local(path.parent), "nothing", [])
    base, glob = globs.split(str(path))
    location = Local(Path(base), follow_links)
    return PathMatch(location, "glob", _files(location, glob, frozenset()))


def _files(location: Local, glob: str, skip_folders: Set[str]) -> list[File]:
    files = [_file(location, path) for path in _walk(location.base, glob, skip_folders)]
    return sorted(files, key=lambda file: file.name)


def _file(location: Local, path: Path) -> File:
    name = path.relative_to(location.base).as_posix()
    try:
        status = path.stat()
    except OSError:  # a broken link or a loop of links: refused when it is read
        return File(name, 0, None)
    if stat.S_ISDIR(status.st_mode):
        return File(name, 0, None, folder=True)
    if path.is_symlink() and location.refusal(name):  # a file that is not read has no size
        return File(name, 0, None)
    return File(name, status.st_size, None)


def _walk(base: Path, glob: str, skip_folders: Set[str]) -> Iterator[Path]:
    """Files that match, and links to folders, which are not followed because of loops.

    Raises: DataError for a folder without read permission.
    """

    def refuse_locked(error: OSError) -> None:
        name = Path(error.filename).relative_to(base).as_posix()
        raise DataError(
            f"folder {name} is locked; every folder of a source must be readable; "
            "change its rights or move it"
        )

    for folder, folders, names in os.walk(base, onerror=refuse_locked if base.is_dir() else None):
        parent = Path(folder)
        visible = [parent / f for f in folders if not f.startswith(".") and f not in skip_folders]
        walked = [p for p in visible if globs.may_contain(p.relative_to(base).as_posix(), glob)]
        folders[:] = sorted(path.name for path in walked)
        yield from (path for path in walked if path.is_symlink())
        for path in (parent / name for name in names if not name.startswith(".")):
            if globs.matches(path.relative_to(base).as_posix(), glob):
                yield path
