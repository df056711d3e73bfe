"""From a row to a document. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ropewalk.conf import sources
from ropewalk.conf.sources import SourceConfig
from ropewalk.data.sources.long_text import LongText, joined, pieces_of, utf8_size
from ropewalk.data.sources.units import OUTSIDE_WHERE, TOO_LARGE, Document, Refusal

MAX_ID = 2**32 - 1
NOT_UTF8 = object()  # replaces a value whose bytes are not UTF-8
OVERSIZE = object()  # replaces a text of more bytes than a document may have


@dataclass(frozen=True)
class Columns:
    """The columns that make the text, and the column of the id."""

    parts: tuple[tuple[str, str | None], ...]  # literal text, and the column after it
    id_key: str | None = None
    ids_key: str | None = None  # the column of token ids, in place of text
    ids_spans: str | None = None  # the column of the first token and the end of their documents
    where: tuple[tuple[str, tuple[str, ...]], ...] = ()  # columns and the values that rows have
    group_by: str | None = None  # the column that `id_key` is, when rows are joined by it

    @classmethod
    def from_config(cls, source: SourceConfig) -> "Columns":
        where = tuple((key, _wanted(value)) for key, value in (source.where or {}).items())
        if source.ids_key is not None:
            return cls((), source.id_key, source.ids_key, source.ids_spans, where)
        parts: tuple[tuple[str, str | None], ...] = (("", source.text_key),)
        if source.template is not None:
            parts = tuple(sources.parts(source.template))
        return cls(parts, source.group_by or source.id_key, where=where, group_by=source.group_by)

    @property
    def texts(self) -> list[str]:
        return list(dict.fromkeys(column for _, column in self.parts if column is not None))

    @property
    def names(self) -> list[str]:
        """Every column that is read, once."""
        named = [k for k in (self.ids_key, self.ids_spans, self.id_key) if k is not None]
        filtered = [key.split(".")[0] for key, _ in self.where]
        return list(dict.fromkeys([*self.texts, *named, *filtered]))

    def document(self, row: object, where: str) -> Document | Refusal:
        """The document of a row; its id is `where` unless there is an id column."""
        if not isinstance(row, dict):
            return Refusal(where, "not an object")
        values: Mapping[str, Any] = row
        for named, accepted in self.where:
            value = _field(values, named)
            if value is None:
                return Refusal(where, f"no {named}")
            if _as_text(value) not in accepted:
                return Refusal(where, OUTSIDE_WHERE)
        for key, types in [*((k, (str, LongText)) for k in self.texts), (self.id_key, (str, int))]:
            if key is not None and (problem := _problem(values.get(key), key, types)):
                return Refusal(where, problem)
        name = where if self.id_key is None else str(values[self.id_key])
        if self.ids_key is not None:
            document = document_of_ids(name, values.get(self.ids_key), self.ids_key)
            if self.ids_spans is None or isinstance(document, Refusal):
                return document
            return _with_borders(document, values.get(self.ids_spans), self.ids_spans)
        pieces = []
        for literal, column in self.parts:
            pieces += [literal, *([] if column is None else pieces_of(values[column]))]
        return Document(name, joined(pieces))


def document_of_ids(name: str, value: object, key: str) -> Document | Refusal:
    """A document of token ids (tokens,), of the column `key`."""
    if value is None:
        return Refusal(name, f"no {key}")
    ids = np.asarray(value) if isinstance(value, (list, np.ndarray)) else np.empty(0, object)
    if not len(ids) and isinstance(value, (list, np.ndarray)):
        return Refusal(name, "no tokens")
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() > MAX_ID:
        return Refusal(name, f"{key} is not token ids")
    return Document(name, "", ids.astype(np.uint32))


def _with_borders(document: Document, value: object, key: str) -> Document | Refusal:
    """The document with where its spans (documents, 2) begin; they must cover it in order."""
    assert document.ids is not None, document.id
    if value is None:
        return Refusal(document.id, f"no {key}")
    try:
        spans = np.array([list(span) for span in value], np.int64)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return Refusal(document.id, f"{key} is not spans")
    if spans.ndim != 2 or spans.shape[1] != 2:
        return Refusal(document.id, f"{key} is not spans")
    starts, ends = spans.T
    if not np.array_equal([*starts, len(document.ids)], [0, *ends]) or (starts >= ends).any():
        return Refusal(document.id, f"{key} does not cover the ids")
    return replace(document, borders=tuple(starts.tolist()))


def _wanted(value: object) -> tuple[str, ...]:
    """The values of a setting `where`, as text."""
    return tuple(map(_as_text, value if isinstance(value, (list, tuple)) else [value]))


def _as_text(value: object) -> str:
    """As JSON writes it: true, 5, RedPajamaBook."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _field(values: Mapping[str, Any], key: str) -> object:
    """The value of a column, or of a field inside one: `meta.name`."""
    if key in values:
        return values[key]
    value: object = values
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


@dataclass(frozen=True)
class ReadSettings:
    """What the readers of files need of the settings."""

    columns: Columns
    max_bytes: int  # of a file of text, of a row, or of a document's text
    ids_dtype: str | None = None  # of ids in bytes, which do not say it
    marks: tuple[int | None, int | None] = (None, None)
    """The tokens before and after each document of bare ids."""


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
    if item.ids is None and all(not piece or piece.isspace() for piece in pieces):
        return Refusal(item.id, "empty")
    if any("\0" in piece for piece in pieces):
        return Refusal(item.id, "NUL byte")
    try:
        item.id.encode()
        size = utf8_size(item.text) if item.ids is None else item.ids.nbytes
        if size > max_bytes:
            return Refusal(item.id, TOO_LARGE)
    except UnicodeEncodeError:
        return Refusal(item.id.encode("utf-8", "backslashreplace").decode(), "lone surrogate")
    return item
