"""The plan: which piece of which document is in which sequence. It holds no tokens.

plan.arrow has one row a sequence, `pieces: list<struct<document, start, length>>`, and a record
batch for each block of the mixed order.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ropewalk.data.packing.packed import Packed
from ropewalk.data.tokens.arrow_table import to_arrow, to_numpy

PIECE = pa.struct([("document", pa.int64()), ("start", pa.int64()), ("length", pa.int32())])
SCHEMA = pa.schema({"pieces": pa.large_list(PIECE)})
FILE = "plan.arrow"


@dataclass
class Totals:
    """Counts of sequences and pieces; tokens with boundary tokens."""

    sequences: int = 0
    pieces: int = 0
    tokens: int = 0

    def add(self, packed: Packed) -> "Totals":
        self.sequences += len(packed)
        self.pieces += len(packed.length)
        self.tokens += int(packed.length.sum())
        return self


def write(folder: Path, blocks: Iterable[Packed]) -> Totals:
    """`plan.arrow`, a record batch for each block."""
    totals = Totals()
    with pa.OSFile(str(folder / FILE), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for packed in blocks:
            writer.write_table(_table(packed))
            totals.add(packed)
    return totals


def _table(packed: Packed) -> pa.Table:
    columns = zip((packed.document, packed.start, packed.length), PIECE, strict=True)
    pieces = pa.StructArray.from_arrays(
        [to_arrow(values, pa.int64()).cast(field.type) for values, field in columns],
        fields=list(PIECE),
    )
    offsets = to_arrow(packed.offsets, pa.int64())
    return pa.table({"pieces": pa.LargeListArray.from_arrays(offsets, pieces)}, schema=SCHEMA)


class PlanFile:
    """The pieces of a finished plan by sequence, memory-mapped; a block is opened on first use."""

    def __init__(self, folder: Path) -> None:
        self.file = pa.ipc.open_file(pa.memory_map(str(folder / FILE)))
        count = self.file.num_record_batches
        self.blocks: list[Packed | None] = [None] * count
        sizes = [self.file.get_batch(block).num_rows for block in range(count)]
        self.first: list[int] = np.cumsum([0, *sizes], dtype=np.int64).tolist()

    def __len__(self) -> int:
        return self.first[-1]

    def sequence(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Document, start and length (int32) of each piece of a sequence, (pieces,)."""
        block = bisect_right(self.first, number) - 1
        packed = self.blocks[block]
        if packed is None:
            packed = self.blocks[block] = _packed(self.file.get_batch(block))
        row = number - self.first[block]
        span = slice(int(packed.offsets[row]), int(packed.offsets[row + 1]))
        return packed.document[span], packed.start[span], packed.length[span]


@contextmanager
def read_blocks(folder: Path) -> Iterator[Iterator[Packed]]:
    """The blocks of a finished plan one after the other, read and not mapped.

    Mapped pages would stay in the memory of the process after their use. `length` is int32.
    """
    with pa.OSFile(str(folder / FILE)) as source:
        file = pa.ipc.open_file(source)
        yield (_packed(file.get_batch(block)) for block in range(file.num_record_batches))


def _packed(batch: pa.RecordBatch) -> Packed:
    column = batch.column("pieces")
    document, start, length = (to_numpy(column.values.field(field.name)) for field in PIECE)
    return Packed(document, start, length, to_numpy(column.offsets))


def describe(totals: Totals, seq_len: int, boundary_tokens: int = 0) -> dict[str, Any]:
    """Counts for the plan's manifest, in tokens but for `sequences` and `pieces`.

    `boundary_tokens` of the packed tokens are BOS and EOS, which `tokens` does not count.
    """
    room = totals.sequences * seq_len
    return {
        "sequences": totals.sequences,
        "seq_len": seq_len,
        "tokens": totals.tokens - boundary_tokens,
        "marks": boundary_tokens,
        "padding": room - totals.tokens,
        "fill": round(totals.tokens / room, 6) if room else 0.0,
        "pieces": totals.pieces,
    }
