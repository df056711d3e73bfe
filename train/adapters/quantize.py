"""QLoRA (arXiv 2305.14314): frozen weights in 4 bits by bitsandbytes, through transformers' own loading, on CPU and GPU alike."""

import importlib.util
from typing import Any

import torch

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.lora import LoraConfig


def loading(lora: LoraConfig, computes: torch.dtype, at: torch.device) -> dict[str, Any]:
    """Words for `from_pretrained`; none without `train.lora.quantize`. `computes`: the dtype that a weight is unpacked to.

    Raises: ConfigError when bitsandbytes or accelerate, which transformers needs for it, is not installed.
    """
    if lora.quantize == "none":
        return {}
    refuse_missing(lora)
    from transformers import BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=lora.quantize,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=computes,
    )
    return {"quantization_config": settings, "device_map": {"": at}}


def refuse_missing(lora: LoraConfig) -> None:
    """Raises: ConfigError."""
    packages = ("bitsandbytes", "accelerate") if lora.quantize != "none" else ()
    for package in (p for p in packages if importlib.util.find_spec(p) is None):
        raise ConfigError(
            f"train.lora.quantize is {lora.quantize}; it needs {package}; pip install 'ropewalk[qlora]' or train.lora.quantize=none"
        )


def unpacked(parameter: Any) -> torch.Tensor:
    """A parameter as floats: of 4 bits, what the model computes with."""
    state = getattr(parameter, "quant_state", None)
    if state is None:
        return parameter.detach()  # type: ignore[no-any-return]
    from bitsandbytes.functional import dequantize_4bit

    return dequantize_4bit(parameter.data, state)  # type: ignore[no-any-return]
