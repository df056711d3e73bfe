"""The kernels of the GPU: the devices and heads of each, its package, and how that is installed."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ropewalk.train.attention.flash import flash, flash3, flash4, varlen
from ropewalk.train.attention.support import KernelFunction, Requirements

AMPERE, HOPPER, BLACKWELL, THOR, CONSUMER_BLACKWELL = 8, 9, 10, 11, 12
"""NVIDIA's major compute capabilities; 8 is Ada too."""
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


def cuda_tag(version: str | None) -> str:
    """The folder of PyTorch's index for a CUDA version: flash-attn 3 lies in cu126 to cu130."""
    return "cu128" if version is not None and version.startswith("12.") else "cu130"


@dataclass(frozen=True)
class Kernel:
    """A kernel of the GPU: the package that it needs and the devices and heads that it supports."""

    name: str
    function: KernelFunction
    module: str
    distribution: str
    install: str
    majors: tuple[int, ...]
    """Major compute capabilities on which it trains."""
    heads: Callable[[int, Requirements], str] = heads_up_to_256
    """The heads that it takes on a major compute capability; empty where it takes the model's."""
    sink_majors: tuple[int, ...] = ()
    """Major compute capabilities on which attention sinks get a gradient."""
    package_function: str = "flash_attn_varlen_func"


GPU_KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel(
            name="flash4",
            function=flash4,
            module="flash_attn.cute",
            distribution="flash-attn-4",
            install="pip install -e '.[flash4]'",
            majors=(HOPPER, BLACKWELL, THOR, CONSUMER_BLACKWELL),
            heads=heads_of_flash4,
            sink_majors=(HOPPER, BLACKWELL, THOR),
        ),
        Kernel(
            name="flash3",
            function=flash3,
            module="flash_attn_interface",
            distribution="flash-attn-3",
            install="pip install flash-attn-3 --index-url https://download.pytorch.org/whl/"
            + cuda_tag(torch.version.cuda),
            majors=(HOPPER,),
        ),
        Kernel(
            name="flash",
            function=flash,
            module="flash_attn",
            distribution="flash-attn",
            install="pip install --no-build-isolation -e '.[flash]'",
            majors=(AMPERE, HOPPER, BLACKWELL, THOR, CONSUMER_BLACKWELL),
        ),
        Kernel(
            name="varlen",
            function=varlen,
            module="torch.nn.attention.varlen",
            distribution="torch",
            install="install a newer torch",
            majors=(AMPERE, HOPPER, BLACKWELL, THOR, CONSUMER_BLACKWELL),
            package_function="varlen_attn",
        ),
    )
}
AUTO_ORDER = {
    AMPERE: ("flash", "varlen"),
    HOPPER: ("flash3", "flash4", "flash", "varlen"),
    BLACKWELL: ("flash4", "flash", "varlen"),
    THOR: ("flash4", "flash", "varlen"),
    CONSUMER_BLACKWELL: ("flash", "varlen"),
}
"""The kernels that `auto` tries on each major compute capability, the fastest first."""
