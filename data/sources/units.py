"""The records of a source: files, units that are read separately, documents and refusals. Pure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from ropewalk.data.sources.long_text import Text

UNIT_BYTES = 64 << 20  # about; another value moves the shard borders of every store
REPEATED_ID = "id seen before"  # the reason to refuse a document with the id of an earlier one
TOO_LARGE = "above data.max_document_bytes"  # the reason to refuse a larger document
OUTSIDE_WHERE = "outside where"  # the reason to leave out a row with other values
FILE_PREFIX = "file: "  # begins a reason when a file of rows is lost and its row count is unknown
T = TypeVar("T")


@dataclass(frozen=True)
class Document:
    id: str  # stable: the path inside the source and the position in the file, or the id column
    text: Text
    ids: np.ndarray | None = field(default=None, compare=False)
    """(tokens,) uint32, of a row that gives token ids; its text is empty."""
    borders: tuple[int, ...] = ()
    """Where documents begin in the ids, when the row holds several and says so."""


@dataclass(frozen=True)
class Refusal:
    where: str
    reason: str
    count: int = 1  # documents


class DamagedError(ValueError):
    """A file's bytes are not what its own head or index says."""


@dataclass(frozen=True)
class File:
    name: str  # the path inside the source, in posix form
    size: int  # bytes; 0 when unknown or when parts of the file cannot be read
    stamp: str | None  # of a remote file, changes with the content: an ETag; None: unknown
    folder: bool = False  # a link to a folder, which is refused by name and not followed


@dataclass(frozen=True)
class Unit:
    """A range of a source that is read separately: whole files, or parts `[start, stop)` of one.

    Parts are bytes (jsonl: the lines that begin there), row groups (parquet), record batches
    (arrow) or shards (hub).
    """

    files: tuple[str, ...]
    size: int  # bytes, about
    start: int = 0
    stop: int | None = None  # None: to the end

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and self.stop is None


class Location(Protocol):
    """Where the files of a source lie: `local.Local` or `remote.Remote`."""

    def open(self, name: str) -> BinaryIO: ...

    def open_arrow(self, name: str) -> pa.NativeFile: ...

    def refusal(self, name: str) -> str | None:
        """Why a file is not read; None when it is read."""

    def digests(self, files: Sequence[File], cache: Path) -> dict[str, str]:
        """sha256 of files by name, recorded in `cache`; without those that have a stamp."""


@dataclass(frozen=True)
class PathMatch:
    """The files that a path, glob or URL names."""

    location: Location
    form: Literal["file", "folder", "glob", "nothing"]
    files: list[File]  # in path order


def has_suffix(name: str, suffixes: str | tuple[str, ...]) -> bool:
    """Whether a file name ends so, in either case, without the query of a URL: `a.JSONL?raw=1`."""
    return name.split("?")[0].lower().endswith(suffixes)


def split_ranges(sizes: Iterable[int]) -> Iterator[tuple[int, int | None, int]]:
    """Parts of a file joined into ranges of UNIT_BYTES: `(start, stop, size)`; the last is open."""
    first = size = number = 0
    for number, part in enumerate(sizes):
        if size >= UNIT_BYTES:
            yield first, number, size
            first, size = number, 0
        size += part
    yield first, None, size


def grouped_by_size(items: Iterable[T], size: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """Consecutive items in groups that end with the item that reaches `limit` in total size."""
    group: list[T] = []
    total = 0
    for item in items:
        group.append(item)
        total += size(item)
        if total >= limit:
            yield group
            group, total = [], 0
    if group:
        yield group


def group_units(units: Iterable[Unit]) -> list[Unit]:
    """Join whole files into units of UNIT_BYTES; a part of a file stays its own unit."""
    joined: list[Unit] = []
    for is_whole, run in groupby(units, key=lambda unit: unit.is_whole):
        if not is_whole:
            joined += run
            continue
        for group in grouped_by_size(run, lambda unit: unit.size, UNIT_BYTES):
            files = tuple(name for unit in group for name in unit.files)
            joined.append(Unit(files, sum(unit.size for unit in group)))
    return joined
