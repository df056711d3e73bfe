"""A JSON array in a file, one element at a time; memory holds one element and a chunk.

An element ends where its brackets close. Whether it is well formed shows when its row is parsed, so
one that is not is refused alone.
"""

import codecs
import re
from collections.abc import Iterator
from typing import BinaryIO

from ropewalk.data.sources.json_row import STRING

_CHUNK = 1 << 20
_SPACE = re.compile(rb"[ \t\n\r]*")
_STRUCTURE = re.compile(rb'["\[\]{}]')
_SCALAR = re.compile(rb"[^ \t\n\r,\[\]{}\"]+")
_CLOSING = {b"[": b"]", b"{": b"}"}


class OversizeError(Exception):
    """An element of more bytes than are read."""


def elements(file: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    """The JSON of each element. Raises: OversizeError; ValueError when the brackets do not fit."""
    buffer = _Buffer(file, max_bytes)
    buffer.skip(b"[")
    if buffer.peek() != b"]":
        yield buffer.element()
        while buffer.peek() == b",":
            buffer.skip(b",")
            yield buffer.element()
    buffer.skip(b"]")
    if buffer.peek():
        raise ValueError("text after the array")


class _Buffer:
    """Bytes that are read and not yet consumed."""

    def __init__(self, file: BinaryIO, max_bytes: int) -> None:
        self.file = file
        self.max_bytes = max_bytes
        self.bytes = bytearray()
        self.position = 0
        self._read_more()
        self.position = len(codecs.BOM_UTF8) if self.bytes.startswith(codecs.BOM_UTF8) else 0

    def peek(self) -> bytes:
        """The next byte after white space; empty at the end of the file."""
        while True:
            space = _SPACE.match(self.bytes, self.position)
            self.position = space.end() if space else self.position
            if self.position < len(self.bytes) or not self._read_more():
                return bytes(self.bytes[self.position : self.position + 1])

    def skip(self, char: bytes) -> None:
        if self.peek() != char:
            raise ValueError(f"no {char.decode()}")
        self.position += 1

    def element(self) -> bytes:
        """The JSON of the next value. Raises: ValueError, OversizeError."""
        first = self.peek()
        self._forget()
        end = self._end_of_brackets() if first in (b"[", b"{", b'"') else self._end_of_scalar()
        value = bytes(self.bytes[:end])
        self.position = end
        return value

    def _end_of_scalar(self) -> int:
        """Near the end of the buffer `1` may go on as `1e5`."""
        while (match := _SCALAR.match(self.bytes)) and match.end() == len(self.bytes):
            if not self._read_more():
                break
        if match is None:
            raise ValueError("no value")
        return match.end()

    def _end_of_brackets(self) -> int:
        """Where the value ends that is a string, an array or an object."""
        open_brackets: list[bytes] = []
        end = 0
        while True:
            match = _STRUCTURE.search(self.bytes, end)
            if match is None:
                end = len(self.bytes)
                self._require_more()
                continue
            if match[0] == b'"':
                end = self._end_of_string(match.start())
            else:
                end = match.end()
                _nest(open_brackets, match[0])
            if not open_brackets:
                return end

    def _end_of_string(self, start: int) -> int:
        while (string := STRING.match(self.bytes, start)) is None:
            self._require_more()
        return string.end()

    def _require_more(self) -> None:
        if not self._read_more():
            raise ValueError("the array breaks off")

    def _forget(self) -> None:
        """Drop what is consumed."""
        del self.bytes[: self.position]
        self.position = 0

    def _read_more(self) -> bool:
        """Grow the buffer by a quarter, for few searches of a long string. False at the end.

        Raises: OversizeError.
        """
        if len(self.bytes) - self.position > self.max_bytes:
            raise OversizeError
        chunk = self.file.read(max(_CHUNK, len(self.bytes) // 4))
        self.bytes += chunk
        return bool(chunk)


def _nest(open_brackets: list[bytes], bracket: bytes) -> None:
    if bracket in _CLOSING:
        open_brackets.append(bracket)
    elif not open_brackets or _CLOSING[open_brackets.pop()] != bracket:
        raise ValueError(f"a {bracket.decode()} closes nothing")
