"""JSON rows, one a line; also compressed by gzip or zstd.

A document's id is its file and the byte offset of its line: a line number would need all lines
before it, and appended documents do not change an offset. A `.json` may also be an array of rows:
it is read from its beginning, and an id is the row's number.
"""

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from types import ModuleType
from typing import Any, BinaryIO

from ropewalk.conf.errors import DataError
from ropewalk.data.sources import json_array, units
from ropewalk.data.sources.columns import Columns
from ropewalk.data.sources.units import FILE_PREFIX, Document, Location, Refusal, Unit, has_suffix

_COMPRESSED = ("", ".gz", ".zst")
SUFFIXES = tuple(form + packed for form in (".jsonl", ".ndjson") for packed in _COMPRESSED)
JSON_SUFFIXES = tuple(f".json{packed}" for packed in _COMPRESSED)  # in a folder of code: settings


def split(location: Location, name: str, size: int) -> list[Unit]:
    """Byte ranges of UNIT_BYTES; a line belongs to the range that it begins in.

    Compressed files and arrays stay whole.
    """
    step = units.UNIT_BYTES
    if has_suffix(name, (".gz", ".zst")) or _holds_array(location, name):
        return [Unit((name,), size)]
    return [
        Unit((name,), min(step, size - start), start, start + step if start + step < size else None)
        for start in range(0, size, step)
    ]


def documents(
    location: Location, name: str, unit: Unit, columns: Columns
) -> Iterator[Document | Refusal]:
    """The rows of a unit; damage ends the unit with a refusal where the last good line ended."""
    offset = unit.start
    try:
        with location.open(name) as raw_file:
            file = _decompressed(raw_file, name)
            if unit.is_whole and _is_array(file, name):
                yield from _elements(file, name, columns)
                return
            for offset, line in _lines(file, unit):
                row = line if offset else line.removeprefix(codecs.BOM_UTF8)
                if row.strip():
                    yield _document(row, f"{name}@{offset}", columns)
                offset += len(line)
    except (EOFError, OSError, zlib.error) as error:
        damaged = isinstance(error, (EOFError, gzip.BadGzipFile, zlib.error))
        form = "zstd" if has_suffix(name, ".zst") else "gzip"
        reason = f"damaged {form}" if damaged else "unreadable"
        yield Refusal(f"{name}@{offset}", FILE_PREFIX + reason)


def _holds_array(location: Location, name: str) -> bool:
    try:
        with location.open(name) as file:
            return _is_array(file, name)
    except OSError:  # `documents` reports it
        return False


def _is_array(file: Any, name: str) -> bool:
    if not has_suffix(name, JSON_SUFFIXES):
        return False
    head: bytes = file.peek(64)
    return head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def _elements(file: BinaryIO, name: str, columns: Columns) -> Iterator[Document | Refusal]:
    count = 0
    try:
        for row in json_array.elements(file):
            yield _document(row, f"{name}:{count}", columns)
            count += 1
    except (ValueError, RecursionError):
        yield Refusal(f"{name}:{count}", FILE_PREFIX + "malformed JSON array")


def _lines(file: BinaryIO, unit: Unit) -> Iterator[tuple[int, bytes]]:
    """The byte offset and the content of each line that begins in the unit."""
    offset = unit.start
    if offset:
        file.seek(offset - 1)  # the byte before shows whether a line begins here
        offset += len(file.readline()) - 1
    while unit.stop is None or offset < unit.stop:
        line = file.readline()
        if not line:
            return
        yield offset, line
        offset += len(line)


def _document(line: bytes, where: str, columns: Columns) -> Document | Refusal:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return Refusal(where, "not UTF-8")
    except (ValueError, RecursionError):
        return Refusal(where, "malformed JSON")
    return columns.document(row, where)


def _decompressed(file: BinaryIO, name: str) -> BinaryIO:
    """The file's content without compression. Raises: DataError when a package is missing."""
    if has_suffix(name, ".gz"):
        return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]
    if has_suffix(name, ".zst"):
        try:
            import zstandard
        except ImportError:
            raise DataError(
                f"{name} is zstd; it needs a package; pip install 'ropewalk[zstd]'"
            ) from None
        return io.BufferedReader(_ZstdReader(file, zstandard))  # type: ignore[return-value]
    return file


class _ZstdReader(io.RawIOBase):
    """zstd frames. A cut or damaged frame is an EOFError; zstandard's own reader just ends."""

    def __init__(self, file: BinaryIO, zstandard: ModuleType) -> None:
        self.file = file
        self.zstandard = zstandard
        self.frame: Any = None  # the decompressor of the current frame
        self.input = b""
        self.output = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.output:
            chunk = self.input or self.file.read(1 << 16)
            if not chunk:
                if self.frame is not None:
                    raise EOFError("the last frame breaks off")
                return 0
            self._decompress(chunk)
        count = min(len(buffer), len(self.output))
        buffer[:count], self.output = self.output[:count], self.output[count:]
        return count

    def _decompress(self, chunk: bytes) -> None:
        if self.frame is None:  # the largest window, so that `zstd --long` is read
            decompressor = self.zstandard.ZstdDecompressor(max_window_size=1 << 31)
            self.frame = decompressor.decompressobj()
        try:
            self.output, self.input = self.frame.decompress(chunk), b""
        except self.zstandard.ZstdError as error:
            raise EOFError(str(error)) from error
        if self.frame.eof:
            self.input, self.frame = self.frame.unused_data, None
