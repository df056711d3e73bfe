"""The attention kernel: chosen by device and model, registered with transformers, described."""

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn.attention import current_flash_attention_impl
from transformers import AttentionInterface

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.kernels import GPU_KERNELS, MULTIPLE, Kernel
from ropewalk.train.attention.s2_attn import s2_attention
from ropewalk.train.attention.sdpa import sdpa
from ropewalk.train.attention.shared_context import with_shared_context
from ropewalk.train.attention.support import KernelFunction, Requirements
from ropewalk.train.kernel_packages import (
    AUTO_ORDER,
    KernelPackage,
    auto_choice,
    why_not_importable,
    why_unusable,
)
from ropewalk.train.memory.kept_attention import keepable, noted

KernelWrapper = Callable[[KernelFunction], KernelFunction]
REGISTERED_NAMES = {
    "sdpa": "ropewalk_documents",
    "flash": "ropewalk_fa2",
    "flash3": "ropewalk_fa3",
    "flash4": "ropewalk_fa4",
    "varlen": "ropewalk_varlen",
}
"""Names in transformers. They avoid `flash`, `sdpa` and `flex_attention`: transformers takes a name
with such a word for its own, loads a kernel from the Hugging Face Hub in its place, or refuses
models that its own kernel does not fit (gpt-oss)."""


@dataclass(frozen=True)
class Registration:
    """What `register` chose for a name."""

    backend: str
    description: str
    wrap: KernelWrapper
    """Puts around a kernel what lies around the registered one."""


_REGISTERED: dict[str, Registration] = {}


def register(
    kernel: str,
    wrapper: KernelWrapper | None = None,
    requirements: Requirements | None = None,
    s2_group: int | None = None,
) -> str:
    """Choose a kernel and register it with transformers. Returns its name there.

    `kernel` is `auto`, `flash`, `flash3`, `flash4`, `varlen` or `sdpa`. `wrapper` goes around the
    kernel: Ulysses' exchange of heads and tokens. `s2_group`: S2-Attn in groups of this many tokens
    while training. No mask builder is registered for the name: transformers then builds no mask,
    and does not read the positions back from the device to look for packed documents
    (masking_utils._preprocess_mask_arguments).

    Raises: ConfigError when the kernel is absent or does not fit `requirements`.
    """
    backend, reason = select_backend(kernel, requirements or Requirements())
    kernel_function = sdpa if backend == "sdpa" else GPU_KERNELS[backend].function
    function = with_shared_context(noted(kernel_function))
    name, label = REGISTERED_NAMES[backend], backend
    if s2_group is not None:
        name, label = f"{name}_s2_{s2_group}", f"{label} in S2 groups of {s2_group:,}"
    if wrapper is not None:
        name = f"{name}_wrapped"
    wrap = partial(_wrapped, wrapper=wrapper, s2_group=s2_group)
    AttentionInterface.register(name, keepable(wrap(function)))
    description = f"{label} ({reason})" if reason else label
    _REGISTERED[name] = Registration(backend, description, wrap)
    return name


def _wrapped(
    kernel: KernelFunction, wrapper: KernelWrapper | None, s2_group: int | None
) -> KernelFunction:
    if s2_group is not None:
        kernel = s2_attention(kernel, s2_group)
    return kernel if wrapper is None else wrapper(kernel)


def in_the_same_wrappers(name: str, kernel: KernelFunction) -> KernelFunction:
    """Another kernel in what `register` put around that of `name`: S2-Attn, the exchange."""
    return _REGISTERED[name].wrap(kernel)


def backend_of(name: str) -> str:
    """The kernel behind a name that `register` returned."""
    return _REGISTERED[name].backend


def missing_kernels(backend: str, requirements: Requirements) -> list[str]:
    """Kernels, the fastest first, that fit device and model and are not installed, of those that
    are faster than `backend`."""
    if (major := device_major()) is None:
        return []
    order = AUTO_ORDER.get(major, ())
    faster = order[: order.index(backend)] if backend in order else order
    fitting = (
        kernel for kernel in faster if not why_unfit(GPU_KERNELS[kernel], major, requirements)
    )
    return [kernel for kernel in fitting if why_not_importable(GPU_KERNELS[kernel])]


def version_of(name: str) -> str:
    """For the log: the kernel behind a registered name, its package and the version of that."""
    backend = backend_of(name)
    distribution = "torch" if backend == "sdpa" else GPU_KERNELS[backend].distribution
    try:
        version = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # a build that was copied into place
        version = "of no known version"
    replaced = current_flash_attention_impl() if backend in ("sdpa", "varlen") else None
    inside = f", in which {replaced} is active" if replaced else ""
    return f"{backend} ({distribution} {version}{inside})"


def describe(name: str) -> str:
    """For the log: the kernel behind a name that `register` returned, and why `auto` chose it."""
    return _REGISTERED[name].description if name in _REGISTERED else name


def kernel_for_dtype(kernel: str, dtype: torch.dtype) -> str:
    """The trainer's kernel setting, for a model of another dtype: `auto` in fp32.

    Only sdpa computes in fp32, so a kernel that is set by name would be refused.
    """
    return "auto" if dtype == torch.float32 else kernel


def select_backend(kernel: str, requirements: Requirements) -> tuple[str, str]:
    """The kernel's name, and for `auto` the reasons why it did not take a faster one.

    Raises: ConfigError when a kernel that is set by name cannot run.
    """
    if kernel == "sdpa":
        return kernel, ""
    if kernel != "auto":
        if problem := why_unavailable(GPU_KERNELS[kernel], requirements):
            raise _refusal(kernel, problem)
        return kernel, ""
    if (major := device_major()) is None:
        return "sdpa", "auto: no CUDA device"
    name, reasons = auto_choice(major, partial(_why_missing, requirements, major))
    problems = "; ".join(f"not {other}: {reason}" for other, reason in reasons.items())
    if name == "sdpa" and not problems:
        problems = f"no other kernel for compute capability {major}"
    return name, f"auto: {problems}" if problems else "auto"


def refuse_missing(kernel: str) -> None:
    """What is known before the model is built: the machine's device, and the kernel's package.

    Raises: ConfigError when a kernel that is set by name cannot run on this machine.
    """
    if kernel in ("auto", "sdpa"):
        return
    if problem := why_unusable(GPU_KERNELS[kernel], device_major(), why_not_importable):
        raise _refusal(kernel, problem)


def _refusal(kernel: str, problem: str) -> ConfigError:
    return ConfigError(
        f"train.attention.kernel is {kernel}; {problem}, or set train.attention.kernel=sdpa"
    )


def device_major() -> int | None:
    """The major compute capability of this process's GPU; None without one."""
    return torch.cuda.get_device_capability()[0] if torch.cuda.is_available() else None


def why_unavailable(kernel: Kernel, requirements: Requirements) -> str:
    """Why a kernel cannot run here, with the way out; empty if it can."""
    major = device_major()
    return why_unusable(kernel, major, partial(_why_missing, requirements, major))


def _why_missing(requirements: Requirements, major: int | None, package: KernelPackage) -> str:
    """What is asked of a kernel that is built for the device: model, then package."""
    assert major is not None
    kernel = GPU_KERNELS[package.name]
    return why_unfit(kernel, major, requirements) or why_not_importable(package)


def why_unfit(kernel: Kernel, major: int, requirements: Requirements) -> str:
    """Why a kernel does not compute a model's attention, with the way out; empty if it does."""
    if requirements.dtype not in (torch.float16, torch.bfloat16):
        return "it takes bf16 or fp16 and the model is computed in fp32; set train.precision=bf16"
    if requirements.head_dim % MULTIPLE:
        rule = "heads in multiples of eight"
    else:
        rule = kernel.heads(major, requirements)
    if rule:
        return f"it takes {rule} here, not {requirements.head_dim}; take another model"
    if requirements.sinks and major not in kernel.sink_majors:
        return "it gives attention sinks, which this model has, no gradient; take another model"
    return ""
