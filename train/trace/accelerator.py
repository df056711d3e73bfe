"""An accelerator without a device, registered with torch from Python.

Fake tensors of type "cuda" cannot run a backward pass on a machine without a GPU; those of a
registered accelerator can. torch calls the registration experimental, and it is for the whole
process and for good: call `register` in a process of its own only.
"""

import contextlib
from collections.abc import Iterator
from functools import cache

import torch
from torch.utils import backend_registration

NAME = "traced"
ONE_KERNEL = ("silu_backward", "mish_backward")
"""Operations that CUDA has a kernel for, and that torch otherwise computes by several others, each
with a new tensor as large as the gradient."""


class _Stream:
    """A stream on which nothing runs."""

    def __init__(self, *_: object, **__: object) -> None: ...
    def wait_stream(self, _: object) -> None: ...
    def wait_event(self, _: object) -> None: ...
    def record_event(self, event: "_Event | None" = None) -> "_Event":
        return event or _Event()


class _Event:
    """An event that is over."""

    def __init__(self, *_: object, **__: object) -> None: ...
    def record(self, *_: object) -> None: ...
    def wait(self, *_: object) -> None: ...
    def query(self) -> bool:
        return True


class QueuedCopies:
    """Copies between the accelerator and pinned memory, which are done at once: what is held then
    depends on the program alone, as memory/copy_streams.py has it."""

    pinned = True

    def copying(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def record(self) -> None: ...
    def computing_waits(self, event: object) -> None: ...


class _Module(backend_registration._DummyBackendModule):
    """What torch looks up as `torch.traced`."""

    Stream, Event = _Stream, _Event

    def get_rng_state(self, device: object = 0) -> torch.Tensor:
        return torch.empty(16, dtype=torch.uint8)

    def set_rng_state(self, state: torch.Tensor, device: object = 0) -> None: ...

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    @contextlib.contextmanager
    def device(self, _: object) -> Iterator[None]:
        yield

    def set_device(self, _: object) -> None: ...

    def current_stream(self, *_: object) -> _Stream:
        return _Stream()

    def stream(self, _: object) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def synchronize(self, *_: object) -> None:
        raise RuntimeError("the host waits for the whole device (synchronize)")


@cache
def register() -> torch.device:
    """Register the accelerator, once in this process; returns its device."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
    # rotary tables are computed with autocast switched off, which asks for a kernel of its own
    library = torch.library.Library("_", "IMPL", "AutocastPrivateUse1")
    library.fallback(torch.library.fallthrough_kernel)
    kernels = torch.library.Library("aten", "IMPL", "PrivateUse1")
    for operation in ONE_KERNEL:
        kernels.impl(operation, _like_gradient)
    _libraries.extend((library, kernels))
    return torch.device(NAME, 0)


def _like_gradient(grad: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(grad)


_libraries: list[torch.library.Library] = []
"""Unregistered when they are collected."""
