"""The header of a .safetensors file, read by the format's own definition.

Source: https://github.com/huggingface/safetensors (README, "Format"): 8 bytes with the length of
the header, a JSON header, and the tensors one after another without gaps.
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MAX_HEADER_BYTES = 100_000_000  # the limit of the format's own reader
LFS_POINTER = b"version https://git-lfs"
BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}
"""Bits of an element by the format's names."""


class DamagedFile(Exception):
    """What is wrong with a file, and the way out, without the file's name."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file, by its header."""

    file: Path
    dtype: str
    """The format's name, such as BF16."""
    shape: tuple[int, ...]
    start: int
    """First byte in the file."""
    end: int


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a file by name.

    Raises: DamagedFile.
    """
    try:
        with file.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            values, data_start = _read_json(stream, size)
    except OSError as error:
        raise DamagedFile(f"cannot be read ({error.strerror}); give all files of the model") from (
            error
        )
    values.pop("__metadata__", None)
    tensors = {
        name: _stored_tensor(file, name, value, data_start) for name, value in values.items()
    }
    _refuse_gaps(tensors, data_start, size)
    return tensors


def _read_json(stream: BinaryIO, size: int) -> tuple[dict[str, Any], int]:
    """The header, and the position of the first tensor."""
    first = stream.read(64)
    if reason := not_weights(first):
        raise DamagedFile(reason)
    length = int.from_bytes(first[:8], "little")
    if size < 8 or length > MAX_HEADER_BYTES or first[8:9] != b"{":
        raise DamagedFile(
            f"is no safetensors file (it begins with {first[:8]!r}); download it again"
        )
    if size < 8 + length:
        raise DamagedFile(_truncated(size, 8 + length))
    stream.seek(8)
    try:
        values = json.loads(stream.read(length), object_pairs_hook=unique_keys)
    except ValueError as error:
        raise DamagedFile(f"has a damaged header ({error}); download it again") from error
    return values, 8 + length


def not_weights(first: bytes) -> str | None:
    """What a file is whose first bytes are those of something else than weights."""
    if not first:
        return "is empty; download it again"
    if first.startswith(LFS_POINTER):
        return "is a pointer of git-lfs, not the weights; run git lfs pull in the model's folder"
    if first.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        return "is a web page, not the weights; download it again"
    return None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For `json.loads`, which keeps the last of two equal keys. Raises: ValueError."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)} is there twice")
    return values


def _truncated(size: int, expected: int) -> str:
    return f"is truncated: {size:,} bytes, and its header says {expected:,}; download it again"


def _stored_tensor(file: Path, name: str, value: Any, data_start: int) -> StoredTensor:
    """Raises: DamagedFile for an entry that contradicts itself."""
    try:
        dtype, shape, (start, end) = value["dtype"], value["shape"], value["data_offsets"]
        counts = [*shape, start, end]
        bits = BITS[dtype] * math.prod(shape)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFile(
            f"has a damaged header ({name}: {type(error).__name__} {error}); download it again"
        ) from error
    if any(type(count) is not int or count < 0 for count in counts):
        raise DamagedFile(f"has a damaged header ({name}: {counts}); download it again")
    if (end - start) * 8 != bits:
        raise DamagedFile(
            f"has a damaged header ({name}: {end - start} bytes for {dtype} {shape}); "
            "download it again"
        )
    return StoredTensor(file, dtype, tuple(shape), data_start + start, data_start + end)


def _refuse_gaps(tensors: dict[str, StoredTensor], data_start: int, size: int) -> None:
    """Raises: DamagedFile unless the tensors cover the file to its end."""
    if not tensors:
        raise DamagedFile("has no tensors; give all files of the model")
    position = data_start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != position:
            raise DamagedFile(
                f"has a damaged header ({name} begins at byte {tensor.start:,}, the tensor before "
                f"it ends at {position:,}); download it again"
            )
        position = tensor.end
    if size < position:
        raise DamagedFile(_truncated(size, position))
    if size > position:
        raise DamagedFile(f"has {size - position:,} bytes after its last tensor; download it again")
