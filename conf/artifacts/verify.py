"""Whether the files of a finished stage are still the ones that it wrote.

Small files are hashed each time; a large one again only after a change of its inode, size or times,
which are recorded in `.NAME.digests` beside the folder `NAME`.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from ropewalk.conf.artifacts.digests import file_digest, recorded_digests

NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
LARGE = 1 << 20
"""Bytes from which on a file's digest is recorded."""


def digests_of(
    folder: Path, names: Collection[str] | None = None, of: Path | None = None
) -> dict[str, str]:
    """sha256 of each file of `folder` by its relative path.

    `names`: the files and folders in it that count; None: all. `of`: the folder's name later, for
    the record. Raises: OSError.
    """
    roots = [folder] if names is None else [folder / name for name in names]
    files = (file for root in roots for file in _files(root))
    return _digests(folder, sorted(f.relative_to(folder).as_posix() for f in files), of or folder)


def find_damage(folder: Path, files: Mapping[str, str]) -> str:
    """The first of `files` (relative path: sha256) that is another now, as `NAME is ...`; else
    empty. Raises: OSError for a file that may not be read."""
    digests = _digests(folder, files, folder)
    for name, written in files.items():
        if name not in digests:
            return f"{name} is {'no file' if os.path.lexists(folder / name) else 'missing'}"
        if digests[name] != written:
            return f"{name} is not what was written (sha256)"
    return ""


def _digests(folder: Path, names: Iterable[str], of: Path) -> dict[str, str]:
    """The digests of those that are files; another process may rename the folder meanwhile."""
    sizes = {name: size for name in names if (size := _size(folder / name)) is not None}
    large = [name for name, size in sizes.items() if size >= LARGE]
    digests = {}
    if large:
        digests = recorded_digests(folder, large, of.with_name(f".{of.name}.digests"))
    for name in sizes.keys() - digests.keys():
        with suppress(*NO_FILE):
            digests[name] = file_digest(folder / name)
    return {name: digests[name] for name in sizes if name in digests}


def _size(path: Path) -> int | None:
    """Bytes; None for anything but a file."""
    try:
        return path.stat().st_size if path.is_file() else None
    except NO_FILE:
        return None


def _files(root: Path) -> Iterator[Path]:
    """The files at or below `root`, without hidden ones: records, and what a desktop leaves."""
    paths = root.rglob("*") if root.is_dir() else [root]
    yield from (path for path in paths if path.is_file() and not path.name.startswith("."))
