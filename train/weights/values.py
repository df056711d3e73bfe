"""Values that are not finite, or only zeros, sampled in the files."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

import torch

from ropewalk.train.weights.headers import StoredTensor
from ropewalk.train.weights.shards import shown

SAMPLE_BYTES = 512 << 20
"""Of all files together: below a second, and every value of a base of up to half a gigabyte."""
BLOCK_BYTES = 1 << 20
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Dtypes of weights that are not quantised, by the names of the safetensors format."""


@dataclass
class Sample:
    """Names of tensors by what their sample shows."""

    not_finite: list[str] = field(default_factory=list)
    zeros: list[str] = field(default_factory=list)
    """Matrices of zeros only, as an unfinished download leaves them, or a block that was added."""


def sample(tensors: dict[str, StoredTensor], sample_bytes: int = SAMPLE_BYTES) -> Sample:
    """Look at values that are spread evenly over each tensor.

    Each tensor gets the same share of `sample_bytes`; one that is smaller is read in full.
    """
    share = max(BLOCK_BYTES, sample_bytes // max(1, len(tensors)))
    by_file: dict[Path, list[str]] = {}
    for name, tensor in tensors.items():
        if tensor.dtype in FLOATS and tensor.end > tensor.start:
            by_file.setdefault(tensor.file, []).append(name)
    buffer = bytearray(BLOCK_BYTES)
    result = Sample()
    with _one_thread():
        for file, names in by_file.items():
            with file.open("rb", buffering=0) as stream:
                for name in names:
                    _look(
                        result, name, tensors[name], _blocks(stream, tensors[name], share, buffer)
                    )
    return result


def _look(result: Sample, name: str, tensor: StoredTensor, blocks: Iterator[torch.Tensor]) -> None:
    only_zeros = len(tensor.shape) > 1
    for block in blocks:
        low, high = torch.aminmax(block)
        if not (low.isfinite() and high.isfinite()):
            result.not_finite.append(name)
            return
        only_zeros = only_zeros and bool(low == 0) and bool(high == 0)
    if only_zeros:
        result.zeros.append(name)


@contextmanager
def _one_thread() -> Iterator[None]:
    """A block is too small to be shared: on a busy machine threads wait longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _blocks(
    stream: FileIO, tensor: StoredTensor, share: int, buffer: bytearray
) -> Iterator[torch.Tensor]:
    """Flat blocks of a tensor, one at a time in `buffer`: all, or evenly spaced ones of `share`
    bytes in all.
    """
    dtype = FLOATS[tensor.dtype]
    size = tensor.end - tensor.start
    count = -(-min(size, share) // BLOCK_BYTES)
    last = max(0, size - BLOCK_BYTES)
    block = memoryview(buffer)[: min(BLOCK_BYTES, size)]
    for number in range(count):
        offset = number * last // max(1, count - 1) // dtype.itemsize * dtype.itemsize
        stream.seek(tensor.start + offset)
        stream.readinto(block)
        yield torch.frombuffer(block, dtype=dtype)


def is_finite(values: torch.Tensor) -> bool:
    """Whether no value is nan or inf. The extremes pass nan on, and are faster than `isfinite`."""
    if not values.is_floating_point() or values.numel() == 0:
        return True
    return all(bool(extreme.isfinite()) for extreme in torch.aminmax(values.detach()))


def not_finite_problem(names: list[str]) -> str:
    return (
        f"{shown(names)} has values that are nan or inf; weights must be finite; give the model "
        "undamaged"
    )
