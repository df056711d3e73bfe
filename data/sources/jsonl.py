"""JSON, a row a line; also as gzip and zstd. A document's id is its file and the byte where its line begins:
a line's number is known only to who has read all before it, and documents that are added to the end rename none.
A `.json` may be an array of rows too: it is read from its beginning, and an id is the row's number.
"""

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from ropewalk.conf.errors import DataError
from ropewalk.data.sources import arrays, kinds, units
from ropewalk.data.sources.columns import Columns
from ropewalk.data.sources.units import OF_FILE, Document, Refusal, Unit


def cut(place: Any, name: str, size: int) -> list[Unit]:
    """Ranges of bytes on a grid; a line belongs to the range that it begins in. Compressed files and arrays stay whole."""
    step = units.UNIT_BYTES
    if units.ends(name, (".gz", ".zst")) or _holds_array(place, name):
        return [Unit((name,), size)]
    return [
        Unit((name,), min(step, size - at), at, at + step if at + step < size else None)
        for at in range(0, size, step)
    ]


def documents(place: Any, name: str, unit: Unit, columns: Columns) -> Iterator[Document | Refusal]:
    at = unit.start
    try:
        with place.open(name) as opened:
            file = _plain(opened, name)
            if (unit.start, unit.stop) == (0, None) and _is_array(file, name):
                yield from _elements(file, name, columns)
                return
            for at, line in _lines(file, unit):
                row = line if at else line.removeprefix(codecs.BOM_UTF8)
                if row.strip():
                    yield _row(row, f"{name}@{at}", columns)
                at += len(line)
    except (EOFError, OSError, zlib.error) as error:
        damaged = isinstance(error, (EOFError, gzip.BadGzipFile, zlib.error))
        form = "zstd" if units.ends(name, ".zst") else "gzip"
        yield Refusal(f"{name}@{at}", OF_FILE + (f"damaged {form}" if damaged else "unreadable"))


def _holds_array(place: Any, name: str) -> bool:
    try:
        with place.open(name) as file:
            return _is_array(file, name)
    except OSError:  # its reader tells
        return False


def _is_array(file: Any, name: str) -> bool:
    return units.ends(name, kinds.JSON) and file.peek(64).removeprefix(
        codecs.BOM_UTF8
    ).lstrip().startswith(b"[")


def _elements(file: Any, name: str, columns: Columns) -> Iterator[Document | Refusal]:
    number = 0
    try:
        for number, row in enumerate(arrays.elements(file), 1):
            yield _row(row, f"{name}:{number - 1}", columns)
    except (ValueError, RecursionError):
        yield Refusal(f"{name}:{number}", OF_FILE + "malformed JSON array")


def _lines(file: Any, unit: Unit) -> Iterator[tuple[int, bytes]]:
    """Where each line of the unit begins, and the line."""
    at = unit.start
    if at:
        file.seek(at - 1)  # the byte before tells whether a line begins here
        at += len(file.readline()) - 1
    while unit.stop is None or at < unit.stop:
        line = file.readline()
        if not line:
            return
        yield at, line
        at += len(line)


def _row(line: bytes, where: str, columns: Columns) -> Document | Refusal:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return Refusal(where, "not UTF-8")
    except (ValueError, RecursionError):
        return Refusal(where, "malformed JSON")
    return columns.document(row, where)


def _plain(file: BinaryIO, name: str) -> Any:
    """The file without its compression. Raises: DataError when a package is missing."""
    if units.ends(name, ".gz"):
        return gzip.GzipFile(fileobj=file)
    if units.ends(name, ".zst"):
        try:
            import zstandard
        except ImportError:
            raise DataError(
                f"{name} is zstd; it needs a package; pip install 'ropewalk[zstd]'"
            ) from None
        return io.BufferedReader(_Frames(file, zstandard))
    return file


class _Frames(io.RawIOBase):
    """zstd frames end to end. A frame that breaks off or is damaged is an EOFError: zstandard's own reader just ends."""

    def __init__(self, file: BinaryIO, zstandard: Any) -> None:
        self.file, self.zstandard = file, zstandard
        self.frame: Any = None
        self.rest = self.out = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.out:
            chunk = self.rest or self.file.read(1 << 16)
            if not chunk:
                if self.frame is not None:
                    raise EOFError("the last frame breaks off")
                return 0
            self.frame = self.frame or self._decompressor()
            try:
                self.out, self.rest = self.frame.decompress(chunk), b""
            except self.zstandard.ZstdError as error:
                raise EOFError(str(error)) from error
            if self.frame.eof:
                self.rest, self.frame = self.frame.unused_data, None
        count = min(len(buffer), len(self.out))
        buffer[:count], self.out = self.out[:count], self.out[count:]
        return count

    def _decompressor(self) -> Any:
        """With the largest window: `zstd --long` is not damaged."""
        return self.zstandard.ZstdDecompressor(max_window_size=1 << 31).decompressobj()
