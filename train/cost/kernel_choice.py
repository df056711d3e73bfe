"""What a faster attention kernel would save, by arithmetic over published rates.

Rates are known for Hopper only (step_time.py); elsewhere the faster kernel is named without one.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from ropewalk.train.attention.backend import backend_of, missing_kernels
from ropewalk.train.attention.kernels import GPU_KERNELS
from ropewalk.train.attention.support import requirements_of
from ropewalk.train.cost.flops import ModelCost, model_cost
from ropewalk.train.cost.step_time import FLASH_2, FLASH_3, KernelRates, Rates
from ropewalk.train.kernel_packages import HOPPER

HOPPER_RATES = {"flash3": FLASH_3, "flash": FLASH_2, "varlen": FLASH_2}
"""varlen is torch's own copy of flash-attn 2."""


def faster_kernel(model: PreTrainedModel, dtype: torch.dtype, seq_len: int) -> str:
    """For the log: the fastest kernel that is not installed, what it saves, and how to install it.

    `dtype`: that of the attention's inputs. Empty where no faster kernel fits device and model.
    """
    kernel = backend_of(str(model.config._attn_implementation))
    missing = missing_kernels(kernel, requirements_of(model, dtype))
    if not missing:
        return ""
    better = missing[0]
    saved = _saving(kernel, better, model_cost(model), (seq_len,))
    return (
        f"attention kernel {better} is faster on this GPU and not installed{saved}: "
        f"{GPU_KERNELS[better].install}"
    )


def _saving(kernel: str, better: str, cost: ModelCost, lengths: Sequence[int]) -> str:
    rates = (HOPPER_RATES.get(kernel), HOPPER_RATES.get(better))
    on_hopper = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] == HOPPER
    if rates[0] is None or rates[1] is None or not on_hopper:
        return ""
    present, other = (_seconds(rate, cost, lengths) for rate in rates if rate is not None)
    attention, step = (a / b for a, b in zip(present, other, strict=True))
    return (
        f"; by published rates attention takes {attention:.2f} times as long without it, and a "
        f"step of documents of {max(lengths):,} tokens {step:.2f} times"
    )


def _seconds(rates: KernelRates, cost: ModelCost, lengths: Sequence[int]) -> tuple[float, float]:
    """Of attention and of all products, forward and backward, on one device."""
    forward = sum(layer.flops(lengths) for layer in cost.layers)
    attention = forward / rates.forward + 2.5 * forward / rates.backward
    products = cost.training_flops(lengths, sum(lengths)) - 3 * forward
    return attention, attention + products / Rates(rates).product_flops
