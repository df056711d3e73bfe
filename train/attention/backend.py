"""Which kernel computes the attention, and why no better one does."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.flash import flash, flash3, flash4, varlen
from ropewalk.train.attention.s2_attn import s2_attention
from ropewalk.train.attention.sdpa import sdpa
from ropewalk.train.attention.support import Requirements

KernelFunction = Callable[..., tuple[torch.Tensor, None]]
KernelWrapper = Callable[[KernelFunction], KernelFunction]


@dataclass(frozen=True)
class Kernel:
    """A kernel, what it stands on and where it runs."""

    name: str
    function: KernelFunction
    module: str
    install: str
    majors: tuple[int, ...]  # major compute capabilities for which `auto` takes it
    least: int  # least major compute capability on which it runs
    widest: int = 256  # largest head size


GPU_KERNELS = {
    k.name: k
    for k in (
        Kernel("flash4", flash4, "flash_attn.cute", "install flash-attn-4", (10, 11), 9, 128),
        Kernel(
            "flash3",
            flash3,
            "flash_attn_interface",
            "build flash-attn 3 (its hopper/ folder)",
            (9,),
            9,
        ),
        Kernel(
            "flash", flash, "flash_attn", "pip install 'ropewalk[flash]'", (8, 9, 10, 11, 12), 8
        ),
        Kernel(
            "varlen",
            varlen,
            "torch.nn.attention.varlen",
            "install a newer torch",
            tuple(range(8, 13)),
            8,
        ),
    )
}
NAMES = {
    "sdpa": "ropewalk_documents",
    "flash": "ropewalk_fa2",
    "flash3": "ropewalk_fa3",
    "flash4": "ropewalk_fa4",
    "varlen": "ropewalk_varlen",
}
"""Without `flash`, `sdpa` and `flex_attention`: transformers takes what has such a word in its name for its own, loads another kernel
from the hub in its place, or refuses models that its own one does not fit (gpt-oss)."""
_FUNCTIONS = {"flash": "flash_attn_varlen_func", "varlen": "varlen_attn"}
_TOLD: dict[str, str] = {}


def register(
    kernel: str,
    wrap: KernelWrapper | None = None,
    needs: Requirements | None = None,
    s2_group: int | None = None,
) -> str:
    """Choose the kernel for `auto`, `flash`, `flash3`, `flash4`, `varlen` or `sdpa`, and hand it to transformers; its name there.

    `wrap` goes around it: Ulysses' exchange of heads and tokens. `needs`: what the model asks of it. `s2_group`: S2-Attn in groups of so
    many tokens while training. Raises: ConfigError when what is asked for is absent or cannot do it.
    """
    found, why = select_backend(kernel, needs or Requirements())
    function = sdpa if found == "sdpa" else GPU_KERNELS[found].function
    name, label = NAMES[found], found
    if s2_group is not None:
        name, function = f"{name}_s2_{s2_group}", s2_attention(function, s2_group)
        label = f"{label} in S2 groups of {s2_group:,}"
    if wrap is not None:
        name, function = f"{name}_wrapped", wrap(function)
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, no_mask)
    _TOLD[name] = f"{label} ({why})" if why else label
    return name


def describe(name: str) -> str:
    """The kernel behind a name that `register` gave, and why no better one was taken: for the log."""
    return _TOLD.get(name, name)


def kernel_for_dtype(kernel: str, dtype: torch.dtype) -> str:
    """The kernel that training was told to take, for a model of another dtype: `auto` in fp32, which none but sdpa takes."""
    return "auto" if dtype == torch.float32 else kernel


def select_backend(kernel: str, needs: Requirements) -> tuple[str, str]:
    """The kernel, and why those before it were not taken. Raises: ConfigError when it is asked for by name and cannot be."""
    if kernel == "sdpa":
        return kernel, ""
    if kernel != "auto":
        if missing := why_unavailable(GPU_KERNELS[kernel], needs):
            raise ConfigError(
                f"train.attention is {kernel}; {missing}, or set train.attention=sdpa"
            )
        return kernel, ""
    if not torch.cuda.is_available():
        return "sdpa", "auto: no CUDA device"
    major, passed = torch.cuda.get_device_capability()[0], list[str]()
    for one in GPU_KERNELS.values():
        if major in one.majors:
            if not (missing := why_unavailable(one, needs)):
                return one.name, f"auto: {'; '.join(passed)}" if passed else "auto"
            passed.append(f"not {one.name}: {missing}")
    return "sdpa", f"auto: {'; '.join(passed) or f'no other kernel for compute capability {major}'}"


def why_unavailable(kernel: Kernel, needs: Requirements) -> str:
    """What is missing for a kernel to run here, and what to do about it; empty: nothing."""
    if not torch.cuda.is_available():
        return "it needs a CUDA device; run on a GPU"
    if torch.cuda.get_device_capability()[0] < kernel.least:
        return f"it needs compute capability {kernel.least}.0; run on a newer GPU"
    if needs.dtype not in (torch.float16, torch.bfloat16):
        return "it takes bf16 or fp16 and the model is computed in fp32; set train.precision=bf16"
    if needs.sinks:
        return "it gives attention sinks, which this model has, no gradient; take another model"
    if needs.head_dim > kernel.widest or needs.head_dim % 8:
        return f"it takes heads of up to {kernel.widest} dimensions, in eights, not {needs.head_dim}; take another model"
    return _absent(kernel)


def _absent(kernel: Kernel) -> str:
    """Why a kernel's package is of no use; empty: it is there."""
    function = _FUNCTIONS["varlen" if kernel.name == "varlen" else "flash"]
    try:
        module = importlib.import_module(kernel.module)
    except (ImportError, OSError) as error:  # OSError: built against another torch or CUDA
        return f"it needs {kernel.module}, which does not load ({' '.join(str(error).split())[:160]}); {kernel.install}"
    there = hasattr(module, function)
    return (
        ""
        if there
        else f"it needs {kernel.module}.{function}, which is not there; {kernel.install}"
    )


def no_mask(*args: Any, **kwargs: Any) -> None:
    """In place of a mask: the borders say it all."""
    return None
