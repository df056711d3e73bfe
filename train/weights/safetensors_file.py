"""Writes safetensors files tensor by tensor, in any order, with the bytes of the library's own.

The library's `save_file` needs all tensors of a file in memory at once.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch

LENGTH_BYTES = 8
"""The header's length, before it; the header is padded with spaces to a multiple of as many."""


class Place(NamedTuple):
    """Where a tensor's bytes lie."""

    file: Path
    offset: int
    shape: tuple[int, ...]
    dtype: torch.dtype


def create(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, Place]:
    """Write the header of a file for `tensors`, of which shape and dtype are read only.

    Returns the place of each tensor, whose bytes are still missing. Source of the form:
    https://github.com/huggingface/safetensors#format
    """
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    ends, end = dict[str, int](), 0
    for name, dtype in _library_header(tensors).items():
        shape = tensors[name].shape
        start, end = end, end + math.prod(shape) * tensors[name].dtype.itemsize
        header[name] = {"dtype": dtype, "shape": [*shape], "data_offsets": [start, end]}
        ends[name] = start
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % LENGTH_BYTES)
    first = LENGTH_BYTES + len(text)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
        file.truncate(first + end)
    return {
        name: Place(path, first + start, tuple(tensors[name].shape), tensors[name].dtype)
        for name, start in ends.items()
    }


def _library_header(tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """The format's name of each dtype, in the library's order of tensors: by dtype, then name."""
    data = safetensors.torch.save({n: torch.empty(0, dtype=t.dtype) for n, t in tensors.items()})
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    header = json.loads(data[LENGTH_BYTES : LENGTH_BYTES + length])
    return {name: entry["dtype"] for name, entry in header.items()}


def write(place: Place, tensor: torch.Tensor) -> None:
    """Write a tensor's bytes to its place. A tensor on a device is copied to host memory once."""
    assert (tuple(tensor.shape), tensor.dtype) == (place.shape, place.dtype)
    values = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    with place.file.open("r+b") as file:
        file.seek(place.offset)
        file.write(values.numpy().data)
