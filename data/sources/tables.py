"""What the Parquet and Arrow readers share: record batch -> documents, whose id is file and row."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from ropewalk.data.sources.columns import NOT_UTF8, OVERSIZE, Columns, ReadSettings
from ropewalk.data.sources.long_text import LONG, PIECE, Decoder
from ropewalk.data.sources.units import Document, Refusal

ROWS = 64  # in memory at once: a row of a book corpus is a megabyte
_BYTES = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}


def documents_of(
    batch: pa.RecordBatch, name: str, first_row: int, settings: ReadSettings
) -> Iterator[Document | Refusal]:
    """The rows of a batch, which begins at `first_row` of the file. Raises: ArrowException."""
    columns = settings.columns
    values = [
        _values(batch.column(batch.schema.names.index(key)), settings.max_bytes)
        for key in columns.names
    ]
    for number, row in enumerate(zip(*values, strict=True), first_row):
        yield columns.document(dict(zip(columns.names, row, strict=True)), f"{name}:{number}")


def missing_column(schema: pa.Schema, columns: Columns) -> str | None:
    """Why no row of the table is a document; None when it has every column once."""
    for key in columns.names:
        if schema.names.count(key) != 1:
            return f"no column {key}" if key not in schema.names else f"two columns {key}"
    return None


def failure(error: BaseException, form: str) -> str:
    unreadable = isinstance(error, (FileNotFoundError, PermissionError))
    return "unreadable" if unreadable else f"damaged {form}"


def _values(column: pa.Array, max_bytes: int) -> Iterable[Any]:
    """Python values; a text that is not UTF-8 becomes NOT_UTF8 alone. Raises: ArrowException.

    The values of a column with long texts are made one at a time.

    Arrow trusts the offsets of a file, and a wrong one would crash the process: validate first.
    """
    binary_type = _BYTES.get(column.type)
    (column if binary_type is None else column.view(binary_type)).validate(full=True)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return (s.values.to_numpy(zero_copy_only=False) if s.is_valid else None for s in column)
    if column.nbytes < LONG:
        try:
            return column.to_pylist()  # type: ignore[no-any-return]
        except UnicodeDecodeError:
            pass
    return (_value(scalar, max_bytes) for scalar in column)


def _value(scalar: pa.Scalar, max_bytes: int) -> Any:
    try:
        text = scalar.value if isinstance(scalar, pa.DictionaryScalar) else scalar
        if text.type in _BYTES and text.is_valid:
            return text_of(memoryview(text.as_buffer()), max_bytes)
        return scalar.as_py()
    except UnicodeDecodeError:
        return NOT_UTF8


def text_of(content: memoryview, max_bytes: int) -> Any:
    """UTF-8 as text; OVERSIZE above `max_bytes`. Raises: UnicodeDecodeError."""
    if len(content) > max_bytes:
        return OVERSIZE
    decoder = Decoder("utf-8")
    for start in range(0, len(content), PIECE):
        decoder.add(content[start : start + PIECE])
    return decoder.text()
