"""Parquet and Arrow: a row a document, whose id is its file and row."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import pyarrow as pa
from pyarrow.lib import ArrowException

from ropewalk.data.sources.columns import NOT_UTF8, Columns
from ropewalk.data.sources.units import OF_FILE, Document, Refusal, Unit, ranges

ROWS = 64  # at once in memory: of books, a row is a megabyte
_BYTES = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}
_END = b"\xff\xff\xff\xff\0\0\0\0"  # of an Arrow stream that its writer closed


def cut_parquet(place: Any, name: str, size: int) -> list[Unit]:
    """Row groups, by their bytes in the file. A file that does not open is one unit: its reader refuses it."""
    import pyarrow.parquet as pq

    try:
        found = pq.ParquetFile(place.arrow(name)).metadata
    except (ArrowException, OSError):
        return [Unit((name,), size)]
    groups = [found.row_group(number) for number in range(found.num_row_groups)]
    sizes = [sum(g.column(c).total_compressed_size for c in range(g.num_columns)) for g in groups]
    return [Unit((name,), part, start, stop) for start, stop, part in ranges(sizes)]


def parquet(place: Any, name: str, unit: Unit, columns: Columns) -> Iterator[Document | Refusal]:
    import pyarrow.parquet as pq

    row = end = 0
    try:
        file = pq.ParquetFile(place.arrow(name), buffer_size=1 << 20)
        if reason := _lacking(file.schema_arrow, columns):
            yield from (
                [Refusal(name, reason, max(file.metadata.num_rows, 1))] if unit.start == 0 else []
            )
            return
        stop = file.num_row_groups if unit.stop is None else unit.stop
        row, end = (
            sum(file.metadata.row_group(g).num_rows for g in range(to)) for to in (unit.start, stop)
        )
        for batch in file.iter_batches(
            ROWS, row_groups=list(range(unit.start, stop)), columns=columns.names
        ):
            yield from _documents(batch, name, row, columns)
            row += batch.num_rows
    except (ArrowException, OSError) as error:
        where, reason = (
            name if unit.start == 0 else f"{name}#{unit.start}",
            _reason(error, "parquet"),
        )
        yield Refusal(where, reason, end - row) if end > row else Refusal(where, OF_FILE + reason)


def cut_arrow(place: Any, name: str, size: int) -> list[Unit]:
    """Record batches, by their bytes in memory. Only a mapped file: elsewhere, to pass over a batch is to read it."""
    source = place.arrow(name)
    try:
        sizes = (
            [batch.nbytes for batch in _batches(source)]
            if isinstance(source, pa.MemoryMappedFile)
            else []
        )
    except (ArrowException, OSError):
        sizes = []
    return [Unit((name,), part or size, start, stop) for start, stop, part in ranges(sizes)]


def arrow(place: Any, name: str, unit: Unit, columns: Columns) -> Iterator[Document | Refusal]:
    row = 0
    try:
        batches = _batches(place.arrow(name))
        for number, batch in enumerate(batches):
            if number == unit.stop:
                return
            if reason := _lacking(batch.schema, columns):
                if unit.start == 0:
                    rows = batch.num_rows + sum(rest.num_rows for rest in batches)
                    yield Refusal(name, reason, max(rows, 1))
                return
            if number >= unit.start:
                for first in range(0, batch.num_rows, ROWS):
                    yield from _documents(batch.slice(first, ROWS), name, row + first, columns)
            row += batch.num_rows
    except (ArrowException, OSError) as error:
        yield Refusal(f"{name}:{row}", OF_FILE + _reason(error, "arrow"))


def _reason(error: BaseException, form: str) -> str:
    return (
        "unreadable"
        if isinstance(error, (FileNotFoundError, PermissionError))
        else f"damaged {form}"
    )


def _batches(source: Any) -> Iterator[pa.RecordBatch]:
    """Of a file or of a stream. Raises: OSError for a stream that its writer did not close: one that breaks off between two
    batches reads as if it were whole."""
    if source.read(6) == b"ARROW1":
        file = pa.ipc.open_file(source)
        yield from map(file.get_batch, range(file.num_record_batches))
        return
    source.seek(0)
    stream = pa.ipc.open_stream(source)
    for _ in count():
        try:
            yield stream.read_next_batch()
        except StopIteration:
            break
    source.seek(source.size() - len(_END))
    if source.read() != _END:
        raise OSError("the stream breaks off")


def _lacking(schema: pa.Schema, columns: Columns) -> str | None:
    """Why no row of such a table is a document, if so."""
    for key in columns.names:
        if schema.names.count(key) != 1:
            return f"no column {key}" if key not in schema.names else f"two columns {key}"
    return None


def _documents(
    batch: pa.RecordBatch, name: str, first: int, columns: Columns
) -> Iterator[Document | Refusal]:
    values = [_values(batch.column(batch.schema.names.index(key))) for key in columns.names]
    for number, row in enumerate(zip(*values, strict=True), first):
        yield columns.document(dict(zip(columns.names, row, strict=True)), f"{name}:{number}")


def _values(column: pa.Array) -> list[Any]:
    """Python values; a text that is no UTF-8 does not take its neighbours with it. Raises: ArrowException.

    Arrow trusts the offsets in a file, and a wrong one would end the process: they are held against the data first.
    """
    plain = _BYTES.get(column.type)
    (column if plain is None else column.view(plain)).validate(full=True)
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return NOT_UTF8
