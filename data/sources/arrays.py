"""A JSON array in a file, an element at a time: no more of it is in memory than the longest element and a chunk."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

_CHUNK = 1 << 20
_SPACE = re.compile(r"[ \t\n\r]*")
_BORDERS = json.JSONDecoder(
    strict=False
)  # a control character in a string is its row's fault, and the next row stands
_TAIL = 16  # characters: the longest token that a chunk can cut in two, but for a string


def elements(file: Any) -> Iterator[bytes]:
    """The JSON of each element. Raises: ValueError, RecursionError where the array is malformed or breaks off."""
    text = _Text(file)
    text.skip("[")
    if text.next() != "]":
        yield text.element()
        while text.next() == ",":
            text.skip(",")
            yield text.element()
    text.skip("]")
    if text.next():
        raise ValueError("text after the array")


class _Text:
    """What is read of a file and not yet used. Bytes that are no UTF-8 pass through it."""

    def __init__(self, file: Any) -> None:
        self.file, self.held, self.at = file, "", 0
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")

    def next(self) -> str:
        """The next character that is no white space; nothing at the end."""
        while True:
            space = _SPACE.match(self.held, self.at)
            self.at = space.end() if space else self.at
            if self.at < len(self.held) or not self._read_on():
                return self.held[self.at : self.at + 1]

    def skip(self, mark: str) -> None:
        if self.next() != mark:
            raise ValueError(f"no {mark}")
        self.at += 1

    def element(self) -> bytes:
        """The JSON from here to where a value ends: `1` may go on as `1e5`."""
        self.next()
        while ((end := self._end()) is None or end > len(self.held) - _TAIL) and self._read_on():
            pass
        if end is None:
            raise ValueError("the array breaks off")
        start, self.at = self.at, end
        return self.held[start:end].encode("utf-8", "surrogateescape")

    def _end(self) -> int | None:
        """None where more must be read. Raises: ValueError where that would not help."""
        try:
            return _BORDERS.raw_decode(self.held, self.at)[1]
        except json.JSONDecodeError as error:
            if error.pos < len(self.held) - _TAIL and not error.msg.startswith(
                "Unterminated string"
            ):
                raise
            return None

    def _read_on(self) -> bool:
        """As much again as is held: a long element is then looked at a few times only. False at the end."""
        chunk = self.file.read(max(_CHUNK, len(self.held) - self.at))
        if chunk:
            self.held, self.at = self.held[self.at :] + self.decoder.decode(chunk), 0
        return bool(chunk)
