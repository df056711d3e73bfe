"""The keys and tensors of a GGUF file, by the gguf package's reader."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ropewalk.conf.errors import ConfigError

if TYPE_CHECKING:
    from gguf import ReaderTensor

WAY_OUT = "give the Hugging Face folder that it was converted from"
DAMAGED = (ValueError, IndexError, KeyError, OverflowError, MemoryError, TypeError)
"""What the reader raises for bytes that are no GGUF."""


@dataclass(frozen=True)
class Header:
    """What the file says, without its weights."""

    name: str
    keys: dict[str, Any]
    tensors: "dict[str, ReaderTensor]"

    @property
    def architecture(self) -> str:
        return str(self.keys.get("general.architecture"))

    @property
    def model_keys(self) -> dict[str, Any]:
        """The architecture's own keys, without its name in front."""
        prefix = f"{self.architecture}."
        return {k.removeprefix(prefix): v for k, v in self.keys.items() if k.startswith(prefix)}

    def refusal(self, key: str, value: object, rule: str, way_out: str = WAY_OUT) -> ConfigError:
        return ConfigError(f"model.gguf_file is {self.name}: {key} is {value}; {rule}; {way_out}")


def read(file: Path) -> Header:
    """Raises: ConfigError for a file that is no whole GGUF model."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
        # a name may stand twice in a damaged file; the reader refuses it
        keys = {key: field.contents() for key, field in reader.fields.items()}
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"model.gguf_file is {file.name}; it must be a whole GGUF file of version 2 or 3 "
            f"({reason}); download it again"
        ) from error
    header = Header(file.name, keys, {tensor.name: tensor for tensor in reader.tensors})
    _refuse_parts(header)
    _refuse_undecodable(header)
    return header


def _refuse_parts(header: Header) -> None:
    """Raises: ConfigError for a file that holds no model, or a part of one."""
    if header.architecture == "None" or not header.tensors:
        missing = "tensors" if "general.architecture" in header.keys else "general.architecture"
        raise ConfigError(
            f"model.gguf_file is {header.name}; it has no {missing}, so it holds no model; give "
            "the file with the weights"
        )
    if (parts := header.keys.get("split.count", 0)) > 1:
        rule = "a base is one file"
        raise header.refusal("split.count", parts, rule, "join it by llama-gguf-split --merge")
    if (kind := header.keys.get("general.type", "model")) != "model":
        raise header.refusal("general.type", kind, "a base is a model", "give the model's file")


def _refuse_undecodable(header: Header) -> None:
    """Raises: ConfigError for weights of a type that the gguf package cannot dequantise."""
    from gguf import dequantize

    for tensor in {t.tensor_type: t for t in header.tensors.values()}.values():
        try:
            dequantize(tensor.data.reshape(-1, tensor.data.shape[-1])[:1], tensor.tensor_type)
        except NotImplementedError:
            raise header.refusal(
                tensor.name,
                f"of type {tensor.tensor_type.name}",
                "the gguf package cannot dequantise it",
                "give a file of another quantisation, such as Q8_0 or F16",
            ) from None


def values(header: Header, name: str) -> np.ndarray | None:
    """A small tensor in float64; None if the file lacks it."""
    from gguf import dequantize

    tensor = header.tensors.get(name)
    if tensor is None:
        return None
    return cast(np.ndarray, dequantize(tensor.data, tensor.tensor_type).astype(np.float64))
