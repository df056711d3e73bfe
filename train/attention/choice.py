"""Which kernel computes the attention, and why no better one does."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.kernels import flash, flash3, flash4, varlen
from ropewalk.train.attention.per_document import sdpa

KernelFunction = Callable[..., tuple[torch.Tensor, None]]
Wrap = Callable[[KernelFunction], KernelFunction]


@dataclass(frozen=True)
class Kernel:
    """A kernel, what it stands on and where it runs."""

    name: str
    function: KernelFunction
    module: str
    install: str
    majors: tuple[int, ...]  # major compute capabilities for which `auto` takes it
    least: int  # least major compute capability on which it runs


ON_GPU = {
    k.name: k
    for k in (
        Kernel("flash4", flash4, "flash_attn.cute", "install flash-attn-4", (10, 11), 9),
        Kernel("flash3", flash3, "flash_attn_interface", "build flash-attn 3 (its hopper/ folder)", (9,), 9),
        Kernel("flash", flash, "flash_attn", "pip install 'ropewalk[flash]'", (8, 9, 10, 11, 12), 8),
        Kernel("varlen", varlen, "torch.nn.attention.varlen", "install a newer torch", tuple(range(8, 13)), 8),
    )
}
_FUNCTIONS = {"flash": "flash_attn_varlen_func", "varlen": "varlen_attn"}
_TOLD: dict[str, str] = {}


def register(kernel: str, wrap: Wrap | None = None) -> str:
    """Choose the kernel for `auto`, `flash`, `flash3`, `flash4`, `varlen` or `sdpa`, and hand it to transformers; its name there.

    `wrap` is put around the kernel: Ulysses' exchange of heads and tokens. Raises: ConfigError when what is asked for is absent.
    """
    found, why = choose(kernel)
    function = sdpa if found == "sdpa" else ON_GPU[found].function
    name = f"ropewalk_{'flash2' if found == 'flash' else found}" + ("_wrapped" if wrap else "")
    AttentionInterface.register(name, wrap(function) if wrap else function)
    AttentionMaskInterface.register(name, no_mask)
    _TOLD[name] = f"{name} ({why})" if why else name
    return name


def told(name: str) -> str:
    """A registered kernel's name, and why no better one was taken: for the log."""
    return _TOLD.get(name, name)


def choose(kernel: str) -> tuple[str, str]:
    """The kernel, and why those before it were not taken. Raises: ConfigError when it is asked for by name and absent."""
    if kernel == "sdpa":
        return kernel, ""
    if kernel != "auto":
        if missing := lacks(ON_GPU[kernel]):
            raise ConfigError(
                f"train.attention is {kernel}; {missing}; {ON_GPU[kernel].install}, or set train.attention=sdpa"
            )
        return kernel, ""
    if not torch.cuda.is_available():
        return "sdpa", "auto: no CUDA device"
    major, passed = torch.cuda.get_device_capability()[0], []
    for one in ON_GPU.values():
        if major in one.majors:
            if not (missing := lacks(one)):
                return one.name, f"auto: {'; '.join(passed)}" if passed else "auto"
            passed.append(f"{one.name}: {missing}")
    return "sdpa", f"auto: {'; '.join(passed) or f'no other kernel for compute capability {major}'}"


def lacks(kernel: Kernel) -> str:
    """What is missing for a kernel to run here; empty: nothing."""
    if not torch.cuda.is_available():
        return "it needs a CUDA device"
    if torch.cuda.get_device_capability()[0] < kernel.least:
        return f"it needs compute capability {kernel.least}.0"
    try:
        module = importlib.import_module(kernel.module)
    except (ImportError, OSError) as error:  # OSError: built against another torch or CUDA
        return f"it needs {kernel.module}, which does not load ({' '.join(str(error).split())[:160]})"
    function = _FUNCTIONS["varlen" if kernel.name == "varlen" else "flash"]
    return "" if hasattr(module, function) else f"it needs {kernel.module}.{function}, which is not there"


def no_mask(*args: Any, **kwargs: Any) -> None:
    """In place of a mask: the borders say it all."""
    return None
