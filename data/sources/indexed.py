"""Megatron's token ids: NAME.bin has the ids, NAME.idx the length of each sequence and the first
sequence of each document.

Source: megatron/core/datasets/indexed_dataset.py of Megatron-LM. The index is 9 bytes MMIDIDX, its
version (1), the code of the dtype, the numbers of sequences and of documents + 1; then lengths
(int32), byte offsets (int64), documents (int64) and, of multimodal data, a mode (int8) a sequence.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from ropewalk.conf.errors import DataError
from ropewalk.conf.sources import SourceConfig
from ropewalk.data.sources import units
from ropewalk.data.sources.columns import ReadSettings, document_of_ids
from ropewalk.data.sources.units import (
    FILE_PREFIX,
    TOO_LARGE,
    DamagedError,
    Document,
    Location,
    PathMatch,
    Refusal,
    Unit,
    has_suffix,
)

SUFFIX = ".idx"
_HEAD = struct.Struct("<9sQBQQ")
_MAGIC = b"MMIDIDX\0\0"
_DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}
_ERRORS = (DamagedError, OSError, pa.ArrowException)


@dataclass(frozen=True)
class _Index:
    dtype: np.dtype
    lengths: np.ndarray  # (sequences,) tokens
    offsets: np.ndarray  # (sequences,) bytes
    first: np.ndarray  # (documents + 1,) sequences

    @classmethod
    def of(cls, location: Location, name: str) -> "_Index":
        """The index of a .bin, mapped where it is a local file. Raises: DamagedError, OSError."""
        file = location.open_arrow(_twin(name))
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or head[: len(_MAGIC)] != _MAGIC:
            raise DamagedError("no index of Megatron's")
        _, version, code, sequences, documents = _HEAD.unpack(head)
        modes = file.size() - _HEAD.size - 12 * sequences - 8 * documents
        if version != 1 or code not in _DTYPES or not documents or modes not in (0, sequences):
            raise DamagedError(f"version {version}, dtype {code}, {modes} bytes too many")
        lengths, offsets, first = (
            np.frombuffer(file.read_buffer(count * np.dtype(dtype).itemsize), dtype)
            for count, dtype in ((sequences, "<i4"), (sequences, "<i8"), (documents, "<i8"))
        )
        return cls(np.dtype(_DTYPES[code]).newbyteorder("<"), lengths, offsets, first)

    @property
    def documents(self) -> int:
        return len(self.first) - 1

    @property
    def end(self) -> int:
        """The bytes of the .bin."""
        if not len(self.lengths):
            return 0
        return int(self.offsets[-1]) + int(self.lengths[-1]) * self.dtype.itemsize

    def span(self, number: int) -> tuple[int, int]:
        """The bytes of a document. Raises: DamagedError for one that is not in one piece."""
        low, high = self.first[number : number + 2].tolist()
        if not 0 <= low <= high <= len(self.lengths):
            raise DamagedError(f"document {number} has the sequences {low} to {high}")
        if low == high:
            return 0, 0
        size = int(self.lengths[low:high].sum(dtype=np.int64)) * self.dtype.itemsize
        start = int(self.offsets[low])
        last = int(self.offsets[high - 1]) + int(self.lengths[high - 1]) * self.dtype.itemsize
        if start < 0 or (self.lengths[low:high] < 0).any() or start + size != last:
            raise DamagedError(f"document {number} is not in one piece")
        return start, last


def split(location: Location, name: str, size: int) -> list[Unit]:
    """Documents, by their bytes. A file with a damaged index is one unit."""
    if has_suffix(name, SUFFIX):
        return [Unit((name,), size)]
    try:
        index = _Index.of(location, name)
    except _ERRORS:  # `documents` reports it
        return [Unit((name,), size)]
    sequences = np.clip(index.first[:-1], 0, max(len(index.offsets) - 1, 0))
    starts = index.offsets[sequences] if len(index.offsets) else sequences
    borders = np.searchsorted(starts, np.arange(0, size, units.UNIT_BYTES))
    numbers = sorted({0, *borders.tolist()} - {index.documents})
    ranges = [*pairwise(numbers), (numbers[-1], None)]
    return [Unit((name,), size // len(ranges), start, stop) for start, stop in ranges]


def documents(
    location: Location, name: str, unit: Unit, settings: ReadSettings
) -> Iterator[Document | Refusal]:
    """The documents of a unit of a .bin; damage refuses the remaining ones. A .idx has none."""
    if has_suffix(name, SUFFIX):
        return
    number = stop = unit.start
    try:
        index = _Index.of(location, name)
        stop = index.documents if unit.stop is None else unit.stop
        with location.open(name) as file:
            size = file.seek(0, 2)
            for number in range(unit.start, stop):
                low, high = index.span(number)
                if high > size:
                    raise DamagedError(f"document {number} ends behind the file")
                where = f"{name}:{number}"
                if high - low > settings.max_bytes // 4 * index.dtype.itemsize:
                    yield Refusal(where, TOO_LARGE)
                    continue
                file.seek(low)
                ids = np.frombuffer(file.read(high - low), index.dtype)
                yield document_of_ids(where, ids, "the array")
            number = stop
            if unit.stop is None and size != index.end:
                raise DamagedError("the index is of another file")
    except _ERRORS as error:
        lost = stop - number
        reason = "damaged indexed" if not isinstance(error, OSError) else "unreadable"
        yield Refusal(f"{name}:{number}", reason if lost else FILE_PREFIX + reason, max(lost, 1))


def refuse_halves(source: SourceConfig, key: str, match: PathMatch) -> None:
    """Raises: DataError for a .bin without its .idx, or the other way round."""
    names = {file.name for file in match.files if has_suffix(file.name, (".bin", SUFFIX))}
    alone = sorted(name for name in names if _twin(name) not in names)
    if alone:
        raise DataError(
            f"{key}.path is {source.path}; it holds {alone[0]} without {_twin(alone[0])}; kind "
            "indexed reads both; give the folder, or a glob such as ./name.*"
        )


def _twin(name: str) -> str:
    """The .idx of a .bin, and the .bin of a .idx."""
    stem, suffix = name[:-4], name[-4:]
    return stem + (".bin" if suffix == SUFFIX else SUFFIX)
