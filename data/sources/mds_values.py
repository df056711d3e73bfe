"""A value of an MDS shard, from its bytes. Pure. Pickles are never read: they can run code."""

import json
from typing import Any

import numpy as np

from ropewalk.data.sources.columns import NOT_UTF8
from ropewalk.data.sources.tables import text_of
from ropewalk.data.sources.units import DamagedError

_NUMBERS = {
    *("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
}
_DTYPE_CODES = {
    **{8: "uint8", 9: "int8", 16: "uint16", 17: "int16", 18: "float16", 32: "uint32"},
    **{33: "int32", 34: "float32", 64: "uint64", 65: "int64", 66: "float64"},
}
"""What the first byte of an array says that has no dtype in its column."""
_READABLE = {"str", "bytes", "int", "json", "str_int", "str_float", "ndarray", *_NUMBERS}


def is_readable(encoding: str) -> bool:
    """Whether values of a column with this encoding are read."""
    return encoding.split(":")[0] in _READABLE


def decode(encoding: str, content: memoryview, max_bytes: int, ids_dtype: str | None) -> Any:
    """A value; text that is not UTF-8 is NOT_UTF8.

    `ids_dtype`: bytes are an array of these numbers. Raises: DamagedError.
    """
    kind, _, form = encoding.partition(":")
    try:
        if kind == "str":
            return text_of(content, max_bytes)
        if kind == "bytes":
            return bytes(content) if ids_dtype is None else numbers(content, ids_dtype)
        if kind == "ndarray":
            return _array(form, content)
        if kind in ("json", "str_int", "str_float"):
            return json.loads(bytes(content))
        (number,) = numbers(content, "int64" if kind == "int" else kind)
        return number.item()
    except UnicodeDecodeError:
        return NOT_UTF8
    except (ValueError, IndexError, KeyError) as error:
        raise DamagedError(str(error)) from error


def numbers(content: memoryview | bytes, dtype: str) -> np.ndarray:
    """Little-endian numbers (count,), without a copy. Raises: ValueError for a part of one."""
    return np.frombuffer(content, np.dtype(dtype).newbyteorder("<"))


def _array(form: str, content: memoryview) -> np.ndarray:
    """The dtype, unless the column has it; the shape, unless the column has it; the numbers.

    The shape is a byte of dimensions x 4 + the width of a length (1, 2, 4, 8 bytes by 0 to 3), and
    the lengths.
    """
    dtype, _, given = form.partition(":")
    if not dtype:
        dtype, content = _DTYPE_CODES[content[0]], content[1:]
    if given:
        shape = [int(length) for length in given.split(",")]
    else:
        dimensions, width = content[0] >> 2, 1 << (content[0] & 3)
        end = 1 + dimensions * width
        shape, content = numbers(content[1:end], f"uint{8 * width}").tolist(), content[end:]
    return numbers(content, dtype).reshape(shape)
