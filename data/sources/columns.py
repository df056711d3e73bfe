"""From a row to a document. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ropewalk.conf import sources
from ropewalk.conf.sources import SourceConfig
from ropewalk.data.sources.units import Document, Refusal

NOT_UTF8 = object()  # in the place of a value whose bytes are no text


@dataclass(frozen=True)
class Columns:
    """Which columns make the text, and which the id."""

    parts: tuple[tuple[str, str | None], ...]  # text, and the column after it
    id_key: str | None = None

    @classmethod
    def of(cls, source: SourceConfig) -> "Columns":
        parts = (
            [("", source.text_key)] if source.template is None else sources.parts(source.template)
        )
        return cls(tuple(parts), source.id_key)

    @property
    def texts(self) -> list[str]:
        return list(dict.fromkeys(column for _, column in self.parts if column is not None))

    @property
    def names(self) -> list[str]:
        """Each column that is read, once."""
        return list(
            dict.fromkeys([*self.texts, *([self.id_key] if self.id_key is not None else [])])
        )

    def document(self, row: Any, where: str) -> Document | Refusal:
        """The document of a row, whose id is `where` unless a column says it."""
        values: Mapping[str, Any] = row if isinstance(row, dict) else {}
        for key in self.names:
            if wrong := _wrong(values.get(key), key, (str,) if key in self.texts else (str, int)):
                return Refusal(where, wrong)
        text = "".join(
            before + ("" if column is None else values[column]) for before, column in self.parts
        )
        return Document(where if self.id_key is None else str(values[self.id_key]), text)


def _wrong(value: Any, key: str, kinds: tuple[type, ...]) -> str | None:
    if value is None or value == "" and int in kinds:
        return f"no {key}"
    if value is NOT_UTF8:
        return "not UTF-8"
    if isinstance(value, kinds) and not isinstance(value, bool):
        return None
    return f"{key} is not text" if int not in kinds else f"{key} is not an id"


def usable(item: Document | Refusal) -> Document | Refusal:
    """A document that can be tokenised and written; else why not."""
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
