"""QLoRA (arXiv 2305.14314): frozen weights in 4 bits by bitsandbytes, loaded by transformers."""

import importlib.util
from typing import Any

import torch

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.lora import LoraConfig


def load_kwargs(
    lora: LoraConfig, compute_dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """Extra arguments of `from_pretrained`; none without `train.lora.quantize`.

    `compute_dtype`: the dtype that a weight is unpacked to.

    Raises: ConfigError when bitsandbytes or accelerate is missing; transformers needs both.
    """
    if lora.quantize == "none":
        return {}
    refuse_missing_packages(lora)
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=lora.quantize,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
    )
    return {"quantization_config": quantization, "device_map": {"": device}}


def refuse_missing_packages(lora: LoraConfig) -> None:
    """Raises: ConfigError when a package that `train.lora.quantize` needs is not installed."""
    packages = ("bitsandbytes", "accelerate") if lora.quantize != "none" else ()
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"train.lora.quantize is {lora.quantize}; it needs {package}; "
                "pip install 'ropewalk[qlora]' or train.lora.quantize=none"
            )


def dequantized(parameter: torch.Tensor) -> torch.Tensor:
    """A parameter as floats: of a 4-bit weight, the values that the model computes with."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return parameter.detach()
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(parameter.data, state)  # type: ignore[no-any-return]
