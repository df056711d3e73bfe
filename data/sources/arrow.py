"""Arrow IPC files and streams: a row is a document."""

from collections.abc import Iterator
from contextlib import suppress

import pyarrow as pa
from pyarrow.lib import ArrowException

from ropewalk.data.sources import tables
from ropewalk.data.sources.columns import ReadSettings
from ropewalk.data.sources.units import FILE_PREFIX, Document, Location, Refusal, Unit, split_ranges

_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"  # written when the writer closes a stream


def split(location: Location, name: str, size: int) -> list[Unit]:
    """Record batches, by their bytes in memory.

    Only for a mapped file: a remote one has to be read to skip a batch.
    """
    file = location.open_arrow(name)
    sizes: list[int] = []
    if isinstance(file, pa.MemoryMappedFile):
        with suppress(ArrowException, OSError):  # `documents` reports it
            sizes = [batch.nbytes for batch in _batches(file)]
    return [Unit((name,), part or size, start, stop) for start, stop, part in split_ranges(sizes)]


def documents(
    location: Location, name: str, unit: Unit, settings: ReadSettings
) -> Iterator[Document | Refusal]:
    """The rows of a unit; damage ends the unit with a refusal."""
    row = 0
    try:
        batches = _batches(location.open_arrow(name))
        for number, batch in enumerate(batches):
            if number == unit.stop:
                return
            if reason := tables.missing_column(batch.schema, settings.columns):
                if unit.start == 0:
                    rows = batch.num_rows + sum(rest.num_rows for rest in batches)
                    yield Refusal(name, reason, max(rows, 1))
                return
            if number >= unit.start:
                for first in range(0, batch.num_rows, tables.ROWS):
                    rows_of_batch = batch.slice(first, tables.ROWS)
                    yield from tables.documents_of(rows_of_batch, name, row + first, settings)
            row += batch.num_rows
    except (ArrowException, OSError) as error:
        yield Refusal(f"{name}:{row}", FILE_PREFIX + tables.failure(error, "arrow"))


def _batches(file: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    """The batches of a file or a stream.

    Raises: OSError for a stream without its end mark; Arrow would read one that breaks off between
    two batches as complete.
    """
    if file.read(6) == b"ARROW1":
        reader = pa.ipc.open_file(file)
        yield from map(reader.get_batch, range(reader.num_record_batches))
        return
    file.seek(0)
    yield from pa.ipc.open_stream(file)
    file.seek(file.size() - len(_STREAM_END))
    if file.read() != _STREAM_END:
        raise OSError("the stream breaks off")
