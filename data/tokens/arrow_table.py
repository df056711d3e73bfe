"""Arrow tables without pandas, which `pa.array` and `to_numpy` import: 0.5 s of every start."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa


def to_arrow(values: Sequence[Any] | np.ndarray, kind: pa.DataType) -> pa.Array:
    """An array of whole numbers or strings without nulls."""
    if kind == pa.string():
        texts = [value.encode() for value in values]
        ends = np.cumsum([0, *map(len, texts)], dtype=np.int32)
        characters = pa.py_buffer(b"".join(texts))
        return pa.StringArray.from_buffers(len(values), pa.py_buffer(ends), characters)
    numbers = np.ascontiguousarray(values, dtype=str(kind))
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(numbers)])


def to_numpy(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A column of numbers; no copy for one chunk."""
    if isinstance(column, pa.ChunkedArray):  # combine_chunks copies even a single one
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return np.from_dlpack(column)


def read_table(path: Path) -> pa.Table:
    """Memory-mapped."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def write_table(path: Path, table: pa.Table) -> None:
    """On the disk when it returns (fsync)."""
    with path.open("wb") as sink:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        sink.flush()
        os.fsync(sink.fileno())
