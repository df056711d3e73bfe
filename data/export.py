"""The plan for other programs: an ordinary Hugging Face dataset, gathered when it is read, or written out as parquet.

Labels are as transformers has them, not shifted: a token's own id, IGNORE at a piece's first token and on padding. Where attention
stops, other programs read off the positions: transformers takes every jump for a border. So only positions that say the same as
the mask go out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.manifest import Manifest, run_stage
from ropewalk.conf.errors import ConfigError
from ropewalk.data.loading.collate import IGNORE, Row
from ropewalk.data.loading.packed import DataArtifacts, PackedSequences

if TYPE_CHECKING:
    from datasets import Dataset

STAGE, DECIDES = (
    "export",
    {"format", "plan", "stores"},
)  # a model's export has that name and is made of other things
FORMAT = 1  # raise when the same plan is written in other bytes
FILE_TOKENS, GROUP_TOKENS = 1 << 28, 1 << 22
RUNS = "position_ids.list.element"  # counts: as differences they take no room
HOW = {
    "compression": "zstd",
    "use_dictionary": False,
    "column_encoding": {RUNS: "DELTA_BINARY_PACKED"},
}
SCHEMA = pa.schema(
    {
        "input_ids": pa.list_(pa.int32()),
        "attention_mask": pa.list_(pa.int8()),
        "labels": pa.list_(pa.int64()),
        "position_ids": pa.list_(pa.int64()),
        "seq_lengths": pa.list_(pa.int64()),
    }
)


def unshifted(row: Row) -> np.ndarray:
    """(S,) int64."""
    found = np.empty_like(row.labels)
    found[:1] = IGNORE
    found[1:] = row.labels[:-1]
    return found


def refuse(document_mask: bool, positions: str, pose_target: int | None) -> None:
    """Raises: ConfigError for choices that other programs would misread."""
    if pose_target is not None:
        raise ConfigError(
            f"data.pose.target_length is {pose_target}; other programs take skipped positions for a document's border; unset it to export"
        )
    wanted = "restart" if document_mask else "continue"
    if positions != wanted:
        raise ConfigError(
            f"data.positions is {positions}; other programs take a restart for a document's border, and data.document_mask is "
            f"{str(document_mask).lower()}; set data.positions={wanted} to export"
        )


def readable(folders: DataArtifacts) -> PackedSequences:
    """Raises: ConfigError as `refuse`."""
    found = folders.sequences()
    target = None if found.pose is None else found.pose.target_length
    refuse(found.document_mask, "restart" if found.restart_positions else "continue", target)
    return found


@dataclass(frozen=True)
class Gather:
    """From a batch of sequence numbers to their columns; opens the plan where it is used, so that workers may have it."""

    folders: DataArtifacts

    @cached_property
    def sequences(self) -> PackedSequences:
        return self.folders.sequences()

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[np.ndarray]]:
        rows = [self.sequences[number] for number in batch["sequence"]]
        return {
            "input_ids": [row.input_ids for row in rows],
            "labels": [unshifted(row) for row in rows],
            "position_ids": [row.position_ids for row in rows],
        }

    def __getstate__(self) -> dict[str, Any]:
        return {"folders": self.folders}


def as_dataset(folders: DataArtifacts) -> "Dataset":
    """The plan's sequences, padded, as `input_ids`, `labels` and `position_ids`, in the plan's order; tokens are gathered when
    a row is read. Raises: ConfigError as `refuse`."""
    from datasets import Dataset

    return Dataset.from_dict({"sequence": np.arange(len(readable(folders)))}).with_transform(
        Gather(folders)
    )


def target(folder: str | Path) -> Path:
    """Where an export may go, as a whole path. Raises: ConfigError for what is there and is neither empty nor an export."""
    path = Path(folder).expanduser().resolve()
    there = path.exists() and (not path.is_dir() or any(path.iterdir()))
    found = manifest.read(path)
    if there and (found is None or found.stage != STAGE or set(found.content) != DECIDES):
        raise ConfigError(
            f"--export is {path.name}; it must be new, empty or an earlier export; give another folder"
        )
    return path


def write(folders: DataArtifacts, output: Path) -> tuple[Manifest, str]:
    """`output/data/train-*.parquet`: a row a sequence, without padding; `seq_lengths` are the stretches that attend to themselves.

    TRL reads `seq_lengths` (padding_free); axolotl takes rows that have `attention_mask` (all ones) and `labels` as tokenised, and
    reads `position_ids`. Some million tokens are in memory at a time. Raises: ConfigError as `refuse` and `target`.
    """
    output = target(output)
    sequences = readable(folders)
    decides = {
        "format": FORMAT,
        "plan": folders.plan.name,
        "stores": [f.name for f in folders.stores.values()],
    }
    return run_stage(
        STAGE, decides, output, lambda temporary: _write(sequences, temporary / "data")
    )


def _write(sequences: PackedSequences, folder: Path) -> dict[str, Any]:
    from pyarrow.parquet import ParquetWriter

    folder.mkdir()
    each, count = max(1, FILE_TOKENS // sequences.seq_len), len(sequences)
    files = range(0, count, each)
    for number, start in enumerate(files):
        with ParquetWriter(
            folder / f"train-{number:05}-of-{len(files):05}.parquet", SCHEMA, **HOW
        ) as file:
            for part in _parts(
                range(start, min(start + each, count)), max(1, GROUP_TOKENS // sequences.seq_len)
            ):
                file.write_table(_table([_columns(sequences, n) for n in part]))
    return {"sequences": count, "tokens": sum(sequences.num_tokens(n) for n in range(count))}


def _parts(numbers: range, size: int) -> Iterator[range]:
    yield from (numbers[at : at + size] for at in range(0, len(numbers), size))


def _columns(sequences: PackedSequences, number: int) -> list[np.ndarray]:
    """In the order of SCHEMA, without padding."""
    size = sequences.num_tokens(number)
    row = sequences.read(number, high=size)
    lengths = np.diff(np.minimum(row.cu_seqlens, size))
    return [row.input_ids, np.ones(size), unshifted(row), row.position_ids, lengths[lengths > 0]]


def _table(rows: list[list[np.ndarray]]) -> pa.Table:
    columns = []
    for field, parts in zip(SCHEMA, zip(*rows, strict=True), strict=True):
        kind = field.type.value_type
        offsets = np.cumsum([0, *map(len, parts)], dtype=np.int32)
        values = pa.array(np.concatenate(parts).astype(kind.to_pandas_dtype()), type=kind)
        columns.append(pa.ListArray.from_arrays(offsets, values))
    return pa.table(columns, schema=SCHEMA)
