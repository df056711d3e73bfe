"""A row of JSON; the long strings in it become LongTexts, piece by piece. Pure."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

from ropewalk.data.sources.long_text import LONG, PIECE, Text, joined

STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)


class RepeatedKeyError(ValueError):
    """An object has a key twice, so which of the values is meant is unknown."""


def parse(line: bytes | bytearray, keys: Sequence[str]) -> Any:
    """The value as `json.loads` gives it; long strings in it are LongTexts.

    Raises: ValueError (UnicodeDecodeError for bytes that are not UTF-8, RepeatedKeyError for one of
    `keys` that the row has twice), RecursionError.
    """
    texts: dict[str, Text] = {}
    if len(line) >= LONG:
        line = b"".join(_without_long_strings(line, texts))
    hook = None
    if any(line.count(json.dumps(key).encode()) > 1 for key in keys):
        hook = _object
    row = json.loads(line.decode("utf-8"), object_pairs_hook=hook)
    if isinstance(row, _RepeatedKeys) and (repeated := row.repeated & set(keys)):
        raise RepeatedKeyError(min(repeated))
    if texts and isinstance(row, dict):
        return {key: _replaced(value, texts) for key, value in row.items()}
    return row


class _RepeatedKeys(dict[str, Any]):
    """An object with repeated keys; the last value of each counts, as in `json`."""

    repeated: set[str]


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) == len(pairs):
        return values
    result = _RepeatedKeys(values)
    counts = Counter(key for key, _ in pairs)
    result.repeated = {key for key, count in counts.items() if count > 1}
    return result


def _replaced(value: object, texts: dict[str, Text]) -> object:
    return texts.get(value, value) if isinstance(value, str) else value


def _without_long_strings(line: bytes | bytearray, texts: dict[str, Text]) -> Iterator[bytes]:
    """The row with a name in place of each long string, which `texts` then has under that name."""
    rest = position = 0
    while (position := line.find(b'"', position)) >= 0:
        string = STRING.match(line, position)
        if string is None:  # unterminated: the parser says so
            break
        first, position = position, string.end()
        if position - first >= LONG:
            name = uuid4().hex
            texts[name] = joined(list(_pieces(line, first + 1, position - 1)))
            yield bytes(line[rest:first]) + json.dumps(name).encode()
            rest = position
    yield bytes(line[rest:])


def _pieces(line: bytes | bytearray, start: int, stop: int) -> Iterator[str]:
    """The string of bytes `[start, stop)`. Raises: ValueError."""
    high = ""  # the first half of a surrogate pair, whose second half is in the next piece
    while start < stop:
        border = _border(line, start, stop)
        piece = json.loads(b'"%b"' % bytes(line[start:border]))
        if high:
            piece = (high + piece[:1]).encode("utf-16", "surrogatepass").decode(
                "utf-16", "surrogatepass"
            ) + piece[1:]
        high = piece[-1] if border < stop and "\ud800" <= piece[-1] <= "\udbff" else ""
        yield piece.removesuffix(high)
        start = border


def _border(line: bytes | bytearray, start: int, stop: int) -> int:
    """About PIECE bytes on, between two characters or escapes of a string."""
    border = start + PIECE
    if border >= stop:
        return stop
    escape = line.rfind(b"\\", border - 5, border)  # an escape has at most six bytes
    if escape < 0:
        while line[border] & 0xC0 == 0x80:  # inside a character
            border -= 1
        return border
    before = line[start : escape + 1]
    is_first = (len(before) - len(before.rstrip(b"\\"))) % 2  # else an escaped backslash
    return escape if is_first else escape + 1
