"""The plan for other programs, as parquet files.

Labels are as in transformers, not shifted: a token's own id, IGNORE at a piece's first token and on
padding. Other programs read document borders from the positions (transformers takes every jump for
a border), so a plan whose positions contradict its document mask is refused.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.manifest import Manifest, run_stage
from ropewalk.conf.errors import ConfigError
from ropewalk.data.loading.collate import IGNORE, Row
from ropewalk.data.loading.packed import DataArtifacts, PackedSequences

STAGE = "export"
CACHE_KEYS = {"format", "plan", "stores"}  # unlike a model's export, whose stage has the same name
FORMAT = 1  # raise when the same plan is written in other bytes
FILE_TOKENS, GROUP_TOKENS = 1 << 28, 1 << 22
DELTA_ENCODED = "position_ids.list.element"  # consecutive numbers, so their differences are small
PARQUET_OPTIONS = {
    "compression": "zstd",
    "use_dictionary": False,
    "column_encoding": {DELTA_ENCODED: "DELTA_BINARY_PACKED"},
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


def unshifted_labels(row: Row) -> np.ndarray:
    """(S,) int64."""
    return np.concatenate([[IGNORE], row.labels])[:-1]


def refuse(document_mask: bool, positions: str, pose_target: int | None) -> None:
    """Raises: ConfigError for choices that other programs would misread."""
    if pose_target is not None:
        raise ConfigError(
            f"data.pose.target_length is {pose_target}; other programs take skipped positions for "
            "a document's border; unset it to export"
        )
    expected = "restart" if document_mask else "continue"
    if positions != expected:
        raise ConfigError(
            f"data.positions is {positions}; other programs take a restart for a document's "
            f"border, and data.document_mask is {str(document_mask).lower()}; "
            f"set data.positions={expected} to export"
        )


def exportable_sequences(artifacts: DataArtifacts) -> PackedSequences:
    """Raises: ConfigError as `refuse`."""
    sequences = artifacts.sequences()
    pose_target = None if sequences.pose is None else sequences.pose.target_length
    positions = "restart" if sequences.restart_positions else "continue"
    refuse(sequences.document_mask, positions, pose_target)
    return sequences


def target(folder: str | Path) -> Path:
    """The absolute path of an export. Raises: ConfigError unless new, empty or an export."""
    path = Path(folder).expanduser().resolve()
    occupied = path.exists() and (not path.is_dir() or any(path.iterdir()))
    previous = manifest.read(path)
    is_export = previous and previous.stage == STAGE and set(previous.content) == CACHE_KEYS
    if occupied and not is_export:
        raise ConfigError(
            f"--export is {path.name}; it must be new, empty or an earlier export; "
            "give another folder"
        )
    return path


def write(artifacts: DataArtifacts, output: Path) -> tuple[Manifest, str]:
    """`output/data/train-*.parquet`: a row a sequence, without padding.

    `seq_lengths` are the spans that attend to themselves; TRL reads them (padding_free). axolotl
    takes rows with `attention_mask` (all ones) and `labels` as tokenized, and reads `position_ids`.
    Memory holds GROUP_TOKENS tokens. Raises: ConfigError as `refuse` and `target`.
    """
    output = target(output)
    sequences = exportable_sequences(artifacts)
    stores = [folder.name for folder in artifacts.stores.values()]
    cache_key = {"format": FORMAT, "plan": artifacts.plan.name, "stores": stores}
    return run_stage(STAGE, cache_key, output, lambda folder: _write(sequences, folder / "data"))


def _write(sequences: PackedSequences, folder: Path) -> dict[str, Any]:
    from pyarrow.parquet import ParquetWriter

    folder.mkdir()
    files = _split(range(len(sequences)), FILE_TOKENS // sequences.seq_len)
    for file_number, numbers in enumerate(files):
        path = folder / f"train-{file_number:05}-of-{len(files):05}.parquet"
        with ParquetWriter(path, SCHEMA, **PARQUET_OPTIONS) as writer:
            for group in _split(numbers, GROUP_TOKENS // sequences.seq_len):
                writer.write_table(_table([_columns(sequences, number) for number in group]))
    tokens = sum(sequences.num_tokens(number) for number in range(len(sequences)))
    return {"sequences": len(sequences), "tokens": tokens}


def _split(numbers: range, size: int) -> list[range]:
    size = max(1, size)
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _columns(sequences: PackedSequences, number: int) -> list[np.ndarray]:
    """In the order of SCHEMA, without padding."""
    size = sequences.num_tokens(number)
    row = sequences.read(number, high=size)
    lengths = np.diff(np.minimum(row.cu_seqlens, size))
    labels = unshifted_labels(row)
    return [row.input_ids, np.ones(size), labels, row.position_ids, lengths[lengths > 0]]


def _table(rows: list[list[np.ndarray]]) -> pa.Table:
    columns = []
    for field, parts in zip(SCHEMA, zip(*rows, strict=True), strict=True):
        dtype = field.type.value_type
        offsets = np.cumsum([0, *map(len, parts)], dtype=np.int32)
        values = pa.array(np.concatenate(parts).astype(dtype.to_pandas_dtype()), type=dtype)
        columns.append(pa.ListArray.from_arrays(offsets, values))
    return pa.table(columns, schema=SCHEMA)
