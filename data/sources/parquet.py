"""Parquet files: a row is a document."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pyarrow.lib import ArrowException

from ropewalk.data.sources import tables
from ropewalk.data.sources.columns import ReadSettings
from ropewalk.data.sources.units import FILE_PREFIX, Document, Location, Refusal, Unit, split_ranges

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData

_BYTES_AT_ONCE = 32 << 20  # of rows, uncompressed


def split(location: Location, name: str, size: int) -> list[Unit]:
    """Row groups, by bytes in the file. An unreadable file is one unit, refused on reading."""
    import pyarrow.parquet as pq

    try:
        metadata = pq.ParquetFile(location.open_arrow(name)).metadata
    except (ArrowException, OSError):
        return [Unit((name,), size)]
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    sizes = [sum(g.column(c).total_compressed_size for c in range(g.num_columns)) for g in groups]
    return [Unit((name,), part, start, stop) for start, stop, part in split_ranges(sizes)]


def documents(
    location: Location, name: str, unit: Unit, settings: ReadSettings
) -> Iterator[Document | Refusal]:
    """The rows of a unit; damage refuses its remaining rows, by number where that is known."""
    import pyarrow.parquet as pq

    row = end = 0
    try:
        file = pq.ParquetFile(location.open_arrow(name), buffer_size=1 << 20)
        metadata = file.metadata
        if reason := tables.missing_column(file.schema_arrow, settings.columns):
            if unit.start == 0:
                yield Refusal(name, reason, max(metadata.num_rows, 1))
            return
        stop = file.num_row_groups if unit.stop is None else unit.stop
        row = sum(metadata.row_group(group).num_rows for group in range(unit.start))
        groups = list(range(unit.start, stop))
        end = row + sum(metadata.row_group(group).num_rows for group in groups)
        names = settings.columns.names
        rows = _rows_at_once(metadata, groups)
        for batch in file.iter_batches(rows, row_groups=groups, columns=names):
            yield from tables.documents_of(batch, name, row, settings)
            row += batch.num_rows
    except (ArrowException, OSError) as error:
        where = name if unit.start == 0 else f"{name}#{unit.start}"
        reason = tables.failure(error, "parquet")
        if end > row:
            yield Refusal(where, reason, end - row)
        else:
            yield Refusal(where, FILE_PREFIX + reason)


def _rows_at_once(metadata: "FileMetaData", groups: list[int]) -> int:
    """Rows in memory at once: by the size of an average row, which may be a book or a word."""
    sizes = [metadata.row_group(group) for group in groups]
    largest = max((g.total_byte_size // max(g.num_rows, 1) for g in sizes), default=0)
    return max(1, min(tables.ROWS, _BYTES_AT_ONCE // max(largest, 1)))
