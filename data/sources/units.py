"""What a source is made of: files, units that are read by themselves, and the documents in them. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

UNIT_BYTES = 64 << 20  # about; raise or lower it and shards of a store begin elsewhere
ID_SEEN = "id seen before"  # why a later document with the id of an earlier one is refused; only who has all ids can tell

OF_FILE = "file: "


@dataclass(frozen=True)
class Document:
    id: str  # stable: the path inside the source and the place in the file, or what `id_key` says
    text: str


@dataclass(frozen=True)
class Refusal:
    where: str
    reason: str  # begins with OF_FILE where a file of rows is lost, and nobody knows how many
    count: int = 1  # documents


@dataclass(frozen=True)
class File:
    name: str  # the path inside the source, in posix form
    size: int  # bytes; 0 where it is not known or not to be read in parts
    stamp: int | str | None  # changes with the content: a time, an ETag; None: nothing tells
    folder: bool = False  # a link to a folder, which is not followed but told


@dataclass(frozen=True)
class Unit:
    """A stretch of a source that is read by itself: whole files, or parts `[start, stop)` of one.

    Parts are bytes (jsonl: the lines that begin there), row groups (parquet), record batches (arrow) or shards (hub).
    """

    files: tuple[str, ...]
    size: int  # bytes, about
    start: int = 0
    stop: int | None = None  # None: to the end


@dataclass(frozen=True)
class Found:
    """What a path led to."""

    place: Any  # Local or Remote: where the files lie
    how: str  # file, folder or glob: how the path named them; nothing: there is no such
    files: list[File]  # in path order


@dataclass(frozen=True)
class Listed:
    """A source as it was found. Cheap to pickle but for its lists; any unit is read from it in any process."""

    kind: str
    place: Any  # Local, Remote or Hub
    units: list[Unit]  # in input order
    decides: Any  # plain values

    def identity(self) -> Any:
        """What decides the documents, as plain values: the choices of reading; names, sizes and times of the files. Not
        where they lie."""
        return self.decides


def ends(name: str, suffixes: str | tuple[str, ...]) -> bool:
    """Whether a file is of a form by its name, without what a URL asks for: `a.jsonl?download=true`."""
    return name.split("?")[0].endswith(suffixes)


def ranges(sizes: Iterable[int]) -> Iterator[tuple[int, int | None, int]]:
    """Parts `[start, stop)` of a file together until they are UNIT_BYTES, and their size; the last is open."""
    first = size = number = 0
    for number, part in enumerate(sizes):
        if size >= UNIT_BYTES:
            yield first, number, size
            first, size = number, 0
        size += part
    yield first, None, size


def grouped(units: Iterable[Unit]) -> list[Unit]:
    """Whole files together until they are UNIT_BYTES; a part of a file stays alone."""
    found: list[Unit] = []
    files: list[str] = []
    size = 0

    def close() -> None:
        nonlocal size
        if files:
            found.append(Unit(tuple(files), size))
        files.clear()
        size = 0

    for unit in units:
        whole = (unit.start, unit.stop) == (0, None)
        if not whole:
            close()
            found.append(unit)
            continue
        files += unit.files
        size += unit.size
        if size >= UNIT_BYTES:
            close()
    close()
    return found
