"""MosaicML's shards (MDS): a sample is a document.

A shard has the number of samples, the offset of each and of the end (all uint32), its columns as
JSON, and the samples. A sample has the sizes (uint32) of its values whose column has no fixed size,
then the values. Source: streaming/base/format/mds of mosaicml-streaming 0.13, which is not used
because it needs torch and the clients of five clouds; a test holds this against what it writes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, BinaryIO

import numpy as np

from ropewalk.data.sources import compressed
from ropewalk.data.sources.columns import Columns, ReadSettings
from ropewalk.data.sources.mds_values import decode, is_readable, numbers
from ropewalk.data.sources.units import (
    FILE_PREFIX,
    TOO_LARGE,
    DamagedError,
    Document,
    Location,
    Refusal,
    Unit,
    split_ranges,
)

SUFFIXES = tuple(f".mds{packed}" for packed in ("", *compressed.SUFFIXES))
_AT_ONCE = 1 << 20  # bytes; a damaged size must not ask for the memory of all of it


@dataclass(frozen=True)
class Shard:
    """The head of a shard."""

    offsets: np.ndarray  # (samples + 1,)
    names: list[str]
    encodings: list[str]
    sizes: list[int | None]  # bytes of a value; None: each value has its own

    @classmethod
    def read(cls, file: BinaryIO) -> "Shard":
        """From the beginning of a shard. Raises: DamagedError, EOFError."""
        (samples,) = numbers(_exactly(file, 4), "uint32").tolist()
        offsets = numbers(_exactly(file, 4 * samples + 4), "uint32").astype(np.int64)
        head = int(offsets[0]) - 4 * len(offsets) - 4
        if head < 2 or (np.diff(offsets) < 0).any():
            raise DamagedError("the offsets fall")
        try:
            values = json.loads(_exactly(file, head))
            if (values["format"], values["version"]) != ("mds", 2):
                raise DamagedError(f"format {values['format']}, version {values['version']}")
            columns = (values[f"column_{key}"] for key in ("names", "encodings", "sizes"))
            return cls(offsets, *columns)
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedError(str(error)) from error

    @property
    def samples(self) -> int:
        return len(self.offsets) - 1

    def problem(self, columns: Columns) -> str | None:
        """Why no sample is a document; None when every column that is wanted can be read."""
        for key in columns.names:
            if key not in self.names:
                return f"no column {key}"
            encoding = self.encodings[self.names.index(key)]
            if not is_readable(encoding):
                return f"column {key} is {encoding}"
        return None

    def row(self, content: bytes, settings: ReadSettings) -> dict[str, Any]:
        """The wanted values of a sample. Raises: DamagedError."""
        own = self.sizes.count(None)
        given = iter(numbers(content[: 4 * own], "uint32").tolist())
        sizes = [next(given, 0) if size is None else size for size in self.sizes]
        ends = list(accumulate(sizes, initial=4 * own))
        if ends[-1] != len(content):
            raise DamagedError("a sample has another size than its values")
        spans = dict(zip(self.names, zip(self.encodings, pairwise(ends), strict=True), strict=True))
        view, row = memoryview(content), {}
        for key in settings.columns.names:
            encoding, (low, high) = spans[key]
            row[key] = decode(encoding, view[low:high], settings.max_bytes, settings.ids_dtype)
        return row


def split(location: Location, name: str, size: int) -> list[Unit]:
    """Samples, by their bytes. A compressed or unreadable shard is one unit."""
    if compressed.form(name):
        return [Unit((name,), size)]
    try:
        with location.open(name) as file:
            sizes = np.diff(Shard.read(file).offsets).tolist()
    except (DamagedError, EOFError, OSError):  # `documents` reports it
        return [Unit((name,), size)]
    return [Unit((name,), part, start, stop) for start, stop, part in split_ranges(sizes)]


def documents(
    location: Location, name: str, unit: Unit, settings: ReadSettings
) -> Iterator[Document | Refusal]:
    """The samples of a unit; damage refuses the remaining ones, by number where it is known."""
    number = stop = unit.start
    try:
        with location.open(name) as raw_file:
            file = compressed.opened(raw_file, name)
            shard = Shard.read(file)
            if problem := shard.problem(settings.columns):
                if unit.start == 0:
                    yield Refusal(name, problem, max(shard.samples, 1))
                return
            stop = shard.samples if unit.stop is None else unit.stop
            if number:
                file.seek(int(shard.offsets[number]))
            for number in range(unit.start, stop):
                yield _document(file, shard, number, name, settings)
            number = stop
            if unit.stop is None and file.read(1):
                raise DamagedError("bytes follow the last sample")
    except (DamagedError, *compressed.ERRORS) as error:
        lost = stop - number
        reason = "damaged mds" if isinstance(error, DamagedError) else _reason(error, name)
        yield Refusal(f"{name}:{number}", reason if lost else FILE_PREFIX + reason, max(lost, 1))


def _document(
    file: BinaryIO, shard: Shard, number: int, name: str, settings: ReadSettings
) -> Document | Refusal:
    where, size = f"{name}:{number}", int(shard.offsets[number + 1] - shard.offsets[number])
    if size > settings.max_bytes:
        for _ in _blocks(file, size):
            pass
        return Refusal(where, TOO_LARGE)
    return settings.columns.document(shard.row(_exactly(file, size), settings), where)


def _reason(error: BaseException, name: str) -> str:
    if isinstance(error, EOFError) and not compressed.form(name):
        return "damaged mds"
    return compressed.reason(error, name)


def _exactly(file: BinaryIO, size: int) -> bytes:
    """Raises: EOFError for a file that ends before."""
    return b"".join(_blocks(file, size))


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        block = file.read(min(size, _AT_ONCE))
        if not block:
            raise EOFError("the shard breaks off")
        size -= len(block)
        yield block
