"""GGUF files of tiny models, written by the gguf package, whole and damaged."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def rewrite(
    source: Path,
    target: Path,
    keys: Mapping[str, Any] | None = None,
    tensors: Mapping[str, np.ndarray | None] | None = None,
    types: Mapping[str, int] | None = None,
) -> Path:
    """A copy of a file with other keys and tensors. None leaves one out; `types`: raw types."""
    from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter

    reader, keys = GGUFReader(source), dict(keys or {})
    fields = {
        name: (field.contents(), field.types)
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.") and name not in keys
    }
    architecture = keys.pop("general.architecture", None) or fields["general.architecture"][0]
    fields.pop("general.architecture", None)
    writer = GGUFWriter(target, architecture)
    for name, (value, kinds) in fields.items():
        writer.add_key_value(name, value, kinds[0], kinds[1] if len(kinds) > 1 else None)
    kinds_of = {bool: "BOOL", int: "UINT32", float: "FLOAT32", str: "STRING"}
    for name, value in keys.items():
        if value is not None:
            writer.add_key_value(name, value, GGUFValueType[kinds_of[type(value)]])
    data = {tensor.name: np.array(tensor.data) for tensor in reader.tensors} | dict(tensors or {})
    for name, array in data.items():
        if array is not None:
            raw = (types or {}).get(name)
            kind = None if raw is None else GGMLQuantizationType(raw)
            writer.add_tensor(name, np.ascontiguousarray(array), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
