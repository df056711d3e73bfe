"""A JSON array in a file, one element at a time; memory holds one element and a chunk."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

_CHUNK = 1 << 20
_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder(strict=False)
# not strict: a control character in a string fails its own row later, and the next row is read
_TAIL = 16  # characters: the longest token, other than a string, that a chunk border can cut


class OversizeError(Exception):
    """An element of more characters than are read."""


def elements(file: BinaryIO, max_characters: int) -> Iterator[bytes]:
    """The JSON of each element.

    Raises: OversizeError; ValueError, RecursionError when the array is malformed.
    """
    buffer = _Buffer(file, max_characters)
    buffer.skip("[")
    if buffer.peek() != "]":
        yield buffer.element()
        while buffer.peek() == ",":
            buffer.skip(",")
            yield buffer.element()
    buffer.skip("]")
    if buffer.peek():
        raise ValueError("text after the array")


class _Buffer:
    """Text that is read and not yet consumed. Bytes that are not UTF-8 survive in it."""

    def __init__(self, file: BinaryIO, max_characters: int) -> None:
        self.file = file
        self.max_characters = max_characters
        self.text = ""
        self.position = 0
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")

    def peek(self) -> str:
        """The next character after white space; empty at the end of the file."""
        while True:
            space = _SPACE.match(self.text, self.position)
            self.position = space.end() if space else self.position
            if self.position < len(self.text) or not self._read_more():
                return self.text[self.position : self.position + 1]

    def skip(self, char: str) -> None:
        if self.peek() != char:
            raise ValueError(f"no {char}")
        self.position += 1

    def element(self) -> bytes:
        """The JSON of the next value. Near the end of the buffer `1` may go on as `1e5`."""
        self.peek()
        while (end := self._end()) is None or end > len(self.text) - _TAIL:
            if not self._read_more():
                break
        if end is None:
            raise ValueError("the array breaks off")
        start, self.position = self.position, end
        return self.text[start:end].encode("utf-8", "surrogateescape")

    def _end(self) -> int | None:
        """Where the next value ends; None: read more. Raises: ValueError when it is malformed."""
        try:
            return _DECODER.raw_decode(self.text, self.position)[1]
        except json.JSONDecodeError as error:
            unterminated = error.msg.startswith("Unterminated string")
            if error.pos < len(self.text) - _TAIL and not unterminated:
                raise
            return None

    def _read_more(self) -> bool:
        """Double the buffer: a long element is parsed only a few times. False at the end.

        Raises: OversizeError.
        """
        if len(self.text) - self.position > self.max_characters:
            raise OversizeError
        chunk = self.file.read(max(_CHUNK, len(self.text) - self.position))
        if chunk:
            self.text = self.text[self.position :] + self.decoder.decode(chunk)
            self.position = 0
        return bool(chunk)
