"""From a row to a document. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ropewalk.conf import sources
from ropewalk.conf.sources import SourceConfig
from ropewalk.data.sources.long_text import LongText, joined, pieces_of, utf8_size
from ropewalk.data.sources.units import TOO_LARGE, Document, Refusal

NOT_UTF8 = object()  # replaces a value whose bytes are not UTF-8
OVERSIZE = object()  # replaces a text of more bytes than a document may have


@dataclass(frozen=True)
class Columns:
    """The columns that make the text, and the column of the id."""

    parts: tuple[tuple[str, str | None], ...]  # literal text, and the column after it
    id_key: str | None = None

    @classmethod
    def from_config(cls, source: SourceConfig) -> "Columns":
        if source.template is None:
            return cls((("", source.text_key),), source.id_key)
        return cls(tuple(sources.parts(source.template)), source.id_key)

    @property
    def texts(self) -> list[str]:
        return list(dict.fromkeys(column for _, column in self.parts if column is not None))

    @property
    def names(self) -> list[str]:
        """Every column that is read, once."""
        ids = [] if self.id_key is None else [self.id_key]
        return list(dict.fromkeys([*self.texts, *ids]))

    def document(self, row: object, where: str) -> Document | Refusal:
        """The document of a row; its id is `where` unless there is an id column."""
        if not isinstance(row, dict):
            return Refusal(where, "not an object")
        values: Mapping[str, Any] = row
        for key in self.names:
            types = (str, LongText) if key in self.texts else (str, int)
            if problem := _problem(values.get(key), key, types):
                return Refusal(where, problem)
        pieces = []
        for literal, column in self.parts:
            pieces += [literal, *([] if column is None else pieces_of(values[column]))]
        return Document(where if self.id_key is None else str(values[self.id_key]), joined(pieces))


@dataclass(frozen=True)
class ReadSettings:
    """What the readers of files need of the settings."""

    columns: Columns
    max_bytes: int  # of a file of text, of a row, or of a document's text


def _problem(value: object, key: str, types: tuple[type, ...]) -> str | None:
    is_id = int in types
    if value is None or (is_id and value == ""):
        return f"no {key}"
    if value is NOT_UTF8:
        return "not UTF-8"
    if value is OVERSIZE:
        return TOO_LARGE
    if isinstance(value, types) and not isinstance(value, bool):
        return None
    return f"{key} is not an id" if is_id else f"{key} is not text"


def usable(item: Document | Refusal, max_bytes: int) -> Document | Refusal:
    """The document if it can be tokenized and stored, else its refusal."""
    if isinstance(item, Refusal):
        return item
    pieces = pieces_of(item.text)
    if all(not piece or piece.isspace() for piece in pieces):
        return Refusal(item.id, "empty")
    if any("\0" in piece for piece in pieces):
        return Refusal(item.id, "NUL byte")
    try:
        item.id.encode()
        if utf8_size(item.text) > max_bytes:
            return Refusal(item.id, TOO_LARGE)
    except UnicodeEncodeError:
        return Refusal(item.id.encode("utf-8", "backslashreplace").decode(), "lone surrogate")
    return item
