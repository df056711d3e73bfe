"""The kernels of the GPU: the function, the heads and the package of each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ropewalk.train.attention.flash import flash, flash3, flash4, varlen
from ropewalk.train.attention.support import KernelFunction, Requirements
from ropewalk.train.kernel_packages import BLACKWELL, HOPPER, PACKAGES, THOR, KernelPackage

MULTIPLE = 8
"""Elements of 16 bytes in bf16: all kernels load a head in such pieces."""


def heads_up_to_256(major: int, requirements: Requirements) -> str:
    """flash-attn 2 and 3 and torch's own take heads of up to 256."""
    return "" if requirements.head_dim <= 256 else "heads of up to 256 dimensions"


def heads_of_flash4(major: int, requirements: Requirements) -> str:
    """As `_validate_head_dims` of flash_attn/cute/interface.py in flash-attn-4 4.0.0b36."""
    head_dim = requirements.head_dim
    if major == HOPPER:
        return heads_up_to_256(major, requirements)
    if head_dim <= 128 or head_dim == 256 or (head_dim, requirements.value_dim) == (192, 128):
        return ""
    return "heads of up to 128 or of 256 dimensions (192 with values of 128)"


@dataclass(frozen=True, kw_only=True)
class Kernel(KernelPackage):
    """A kernel of the GPU: its function, and the heads that it supports."""

    function: KernelFunction
    heads: Callable[[int, Requirements], str] = heads_up_to_256
    """The heads that it takes on a major compute capability; empty where it takes the model's."""
    sink_majors: tuple[int, ...] = ()
    """Major compute capabilities on which attention sinks get a gradient."""


FLASH4: dict[str, Any] = {"heads": heads_of_flash4, "sink_majors": (HOPPER, BLACKWELL, THOR)}
GPU_KERNELS = {
    "flash4": Kernel(**vars(PACKAGES["flash4"]), function=flash4, **FLASH4),
    "flash3": Kernel(**vars(PACKAGES["flash3"]), function=flash3),
    "flash": Kernel(**vars(PACKAGES["flash"]), function=flash),
    "varlen": Kernel(**vars(PACKAGES["varlen"]), function=varlen),
}
