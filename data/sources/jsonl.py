"""JSON rows, one a line; also compressed (compressed.py).

A document's id is its file and the byte offset of its line: a line number would need all lines
before it, and appended documents do not change an offset. A `.json` may also be an array of rows:
it is read from its beginning, and an id is the row's number.
"""

import codecs
from collections.abc import Iterator
from typing import Any, BinaryIO

from ropewalk.data.sources import compressed, json_array, json_row, units
from ropewalk.data.sources.columns import ReadSettings
from ropewalk.data.sources.long_text import PIECE
from ropewalk.data.sources.units import (
    FILE_PREFIX,
    TOO_LARGE,
    Document,
    Location,
    Refusal,
    Unit,
    has_suffix,
)

_COMPRESSED = ("", *compressed.SUFFIXES)
SUFFIXES = tuple(f + packed for f in (".jsonl", ".ndjson", ".jsonlines") for packed in _COMPRESSED)
JSON_SUFFIXES = tuple(f".json{packed}" for packed in _COMPRESSED)  # in a folder of code: settings
Line = bytes | bytearray


def split(location: Location, name: str, size: int) -> list[Unit]:
    """Byte ranges of UNIT_BYTES; a line belongs to the range that it begins in.

    Compressed files and arrays stay whole.
    """
    step = units.UNIT_BYTES
    if compressed.form(name) or _holds_array(location, name):
        return [Unit((name,), size)]
    return [
        Unit((name,), min(step, size - start), start, start + step if start + step < size else None)
        for start in range(0, size, step)
    ]


def documents(
    location: Location, name: str, unit: Unit, settings: ReadSettings
) -> Iterator[Document | Refusal]:
    """The rows of a unit; damage ends the unit with a refusal where the last good line ended."""
    offset = unit.start
    try:
        with location.open(name) as raw_file:
            file = compressed.opened(raw_file, name)
            if unit.is_whole and _is_array(file, name):
                yield from _elements(file, name, settings)
                return
            if offset:
                offset += _rest_of_line(file, unit)
            while unit.stop is None or offset < unit.stop:
                item, size = _row(file, f"{name}@{offset}", offset == 0, settings)
                if not size:
                    return
                if item is not None:
                    yield item
                offset += size
    except compressed.ERRORS as error:
        yield Refusal(f"{name}@{offset}", FILE_PREFIX + compressed.reason(error, name))


def _row(
    file: BinaryIO, where: str, is_first: bool, settings: ReadSettings
) -> tuple[Document | Refusal | None, int]:
    """The document of the next line, None for a blank one, and the bytes of the line."""
    line, size = _line(file, settings.max_bytes)
    if line is None:
        return Refusal(where, TOO_LARGE), size
    if is_first:
        line = line.removeprefix(codecs.BOM_UTF8)
    return None if not line or line.isspace() else _document(line, where, settings), size


def _holds_array(location: Location, name: str) -> bool:
    try:
        with location.open(name) as file:
            return _is_array(file, name)
    except compressed.ERRORS:  # `documents` reports it
        return False


def _is_array(file: Any, name: str) -> bool:
    if not has_suffix(name, JSON_SUFFIXES):
        return False
    head: bytes = file.peek(64)
    return head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def _elements(file: BinaryIO, name: str, settings: ReadSettings) -> Iterator[Document | Refusal]:
    count = 0
    try:
        for row in json_array.elements(file, settings.max_bytes):
            yield _document(row, f"{name}:{count}", settings)
            count += 1
    except json_array.OversizeError:
        yield Refusal(f"{name}:{count}", f"{FILE_PREFIX}a row {TOO_LARGE}")
    except ValueError:
        yield Refusal(f"{name}:{count}", FILE_PREFIX + "malformed JSON array")


def _rest_of_line(file: BinaryIO, unit: Unit) -> int:
    """Bytes of the unit that belong to a line that begins before it; the file stands after them."""
    assert unit.stop is None or unit.start < unit.stop, unit
    file.seek(unit.start - 1)  # the byte before shows whether a line begins here
    offset = unit.start - 1
    while unit.stop is None or offset < unit.stop:
        block = file.readline(PIECE)
        offset += len(block)
        if not block or block.endswith(b"\n"):
            break
    return offset - unit.start


def _line(file: BinaryIO, max_bytes: int) -> tuple[Line | None, int]:
    """The next line and its bytes; None in place of one that is larger than `max_bytes`."""
    block = file.readline(PIECE)
    line: Line = block
    size = len(block)
    while len(block) == PIECE and not block.endswith(b"\n"):
        block = file.readline(PIECE)
        size += len(block)
        if isinstance(line, bytes):
            line = bytearray(line)
        line += block if size <= max_bytes else b""
    return (line if size <= max_bytes else None), size


def _document(line: Line, where: str, settings: ReadSettings) -> Document | Refusal:
    try:
        row = json_row.parse(line, settings.columns.names)
    except UnicodeDecodeError:
        return Refusal(where, "not UTF-8")
    except json_row.RepeatedKeyError as error:
        return Refusal(where, f"key {error} twice")
    except (ValueError, RecursionError):
        return Refusal(where, "malformed JSON")
    return settings.columns.document(row, where)
