"""From a row to a document. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ropewalk.conf import sources
from ropewalk.conf.sources import SourceConfig
from ropewalk.data.sources.units import Document, Refusal

NOT_UTF8 = object()  # replaces a value whose bytes are not UTF-8


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
        values: Mapping[str, Any] = row if isinstance(row, dict) else {}
        for key in self.names:
            types = (str,) if key in self.texts else (str, int)
            if problem := _problem(values.get(key), key, types):
                return Refusal(where, problem)
        text = "".join(
            literal + ("" if column is None else values[column]) for literal, column in self.parts
        )
        return Document(where if self.id_key is None else str(values[self.id_key]), text)


def _problem(value: object, key: str, types: tuple[type, ...]) -> str | None:
    is_id = int in types
    if value is None or (value == "" and is_id):
        return f"no {key}"
    if value is NOT_UTF8:
        return "not UTF-8"
    if isinstance(value, types) and not isinstance(value, bool):
        return None
    return f"{key} is not an id" if is_id else f"{key} is not text"


def usable(item: Document | Refusal) -> Document | Refusal:
    """The document if it can be tokenized and stored, else its refusal."""
    if isinstance(item, Refusal):
        return item
    if not item.text.strip():
        return Refusal(item.id, "empty")
    if "\0" in item.text:
        return Refusal(item.id, "NUL byte")
    try:
        item.text.encode(), item.id.encode()
    except UnicodeEncodeError:
        return Refusal(item.id.encode("utf-8", "backslashreplace").decode(), "lone surrogate")
    return item
