"""Bare token ids: a file is one array, and a token begins or ends each document.

Such are OLMo-core's and Dolma's .npy (no header), nanoGPT's .bin, and numpy's .npy with a header. A
document belongs to the range of bytes that it begins in; its id is the file and its first token.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import BinaryIO

import numpy as np

from ropewalk.data.sources import units
from ropewalk.data.sources.columns import ReadSettings, document_of_ids
from ropewalk.data.sources.units import FILE_PREFIX, TOO_LARGE, Document, Location, Refusal, Unit

BLOCK = 1 << 20  # tokens in memory at once, beside the document that is read
CUT_OFF = "cut off before ids_end"
_NUMPY = b"\x93NUMPY"
_WIDEST = 8  # bytes of an id


def split(_location: Location, name: str, size: int) -> list[Unit]:
    """Ranges of about UNIT_BYTES, counted from the first id."""
    step = -(-units.UNIT_BYTES // _WIDEST) * _WIDEST  # no id lies in two
    starts = range(0, size, step)
    return [
        Unit((name,), min(step, size - start), start, start + step if start + step < size else None)
        for start in starts
    ]


def documents(
    location: Location, name: str, unit: Unit, settings: ReadSettings
) -> Iterator[Document | Refusal]:
    """The documents that begin in a unit. A file of another form is refused."""
    try:
        with location.open(name) as file:
            array = _Array.of(file, np.dtype(settings.ids_dtype).newbyteorder("<"))
            yield from _cut(array, name, unit, settings)
            if array.problem and unit.stop is None:
                yield Refusal(name, FILE_PREFIX + array.problem)
    except OSError:
        yield Refusal(name, FILE_PREFIX + "unreadable")


@dataclass(frozen=True)
class _Array:
    file: BinaryIO
    dtype: np.dtype
    first: int  # byte of the first id
    tokens: int
    problem: str | None = None

    @classmethod
    def of(cls, file: BinaryIO, dtype: np.dtype) -> "_Array":
        """The ids of a file, after its header if it has one; none when that contradicts `dtype`."""
        size = file.seek(0, 2)
        file.seek(0)
        first, count = 0, None
        if file.read(len(_NUMPY)) == _NUMPY:
            file.seek(0)
            try:
                shape, stored = _header(file)
            except (ValueError, KeyError):
                return cls(file, dtype, 0, 0, "damaged npy")
            if len(shape) != 1 or stored != dtype:
                return cls(file, dtype, 0, 0, f"holds {stored} {shape}, not {dtype} (tokens,)")
            first, count = file.tell(), shape[0]
        tokens, rest = divmod(size - first, dtype.itemsize)
        if rest or count not in (None, tokens):
            return cls(file, dtype, first, tokens, "damaged memmap")
        return cls(file, dtype, first, tokens)

    def read(self, start: int, stop: int) -> np.ndarray:
        """(stop - start,) ids. Raises: OSError for a file that ends before."""
        self.file.seek(self.first + start * self.dtype.itemsize)
        content = self.file.read((stop - start) * self.dtype.itemsize)
        if len(content) != (stop - start) * self.dtype.itemsize:
            raise OSError("the file ends")
        return np.frombuffer(content, self.dtype)


def _header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of numpy's own header. Raises: ValueError, KeyError."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, _, dtype = readers[np.lib.format.read_magic(file)](file)
    return shape, dtype


@dataclass
class _Open:
    """The document that is read."""

    start: int  # its first token
    parts: list[np.ndarray] = field(default_factory=list)
    tokens: int = 0

    def add(self, ids: np.ndarray, most: int) -> None:
        """Keep the ids, of at most about `most` tokens in all."""
        self.tokens += len(ids)
        self.parts = [*self.parts, ids] if self.tokens <= most else []

    def document(self, name: str, most: int) -> Document | Refusal:
        where = f"{name}:{self.start}"
        if self.tokens > most:
            return Refusal(where, TOO_LARGE)
        return document_of_ids(where, np.concatenate(self.parts), "the array")


def _cut(
    array: _Array, name: str, unit: Unit, settings: ReadSettings
) -> Iterator[Document | Refusal]:
    start = unit.start // array.dtype.itemsize
    stop = array.tokens if unit.stop is None else unit.stop // array.dtype.itemsize
    most = settings.max_bytes // 4  # ids are four bytes in memory
    before = array.read(start - 1, start)[0] if 0 < start < array.tokens else None
    current: _Open | None = None
    for low in range(start, array.tokens, BLOCK):
        ids = array.read(low, min(low + BLOCK, array.tokens))
        begins = _beginnings(ids, before, settings.marks)
        for first, end in pairwise(sorted({0, *begins, len(ids)})):
            if first in begins:
                if current is not None:
                    yield current.document(name, most)
                current = _Open(low + first)
                if current.start >= stop:
                    return
            if current is not None:
                current.add(ids[first:end], most)
        before = ids[-1]
    if current is not None:
        is_cut = settings.marks[1] not in (None, before)
        where = f"{name}:{current.start}"
        yield Refusal(where, CUT_OFF) if is_cut else current.document(name, most)


def _beginnings(
    ids: np.ndarray, before: int | None, marks: tuple[int | None, int | None]
) -> set[int]:
    """Where documents begin in `ids` (tokens,), which follow the token `before`; None: none."""
    begin, end = marks
    assert marks != (None, None), "conf/source_ids.py asks for one"
    is_first = np.zeros(len(ids), dtype=bool)
    if begin is not None:
        is_first |= ids == begin
    if end is not None:
        is_first[1:] |= ids[:-1] == end
    is_first[0] |= before is None or (end is not None and before == end)
    return set(np.flatnonzero(is_first).tolist())
