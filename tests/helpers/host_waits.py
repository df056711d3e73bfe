"""Counts the places where the host would wait for a GPU, in a run on a CPU.

Every tensor counts as the device's, unless it comes from NumPy or from a list (`torch.tensor`
without a device), was read back before, or is computed from such tensors alone; `to` a device makes
it the device's. DeepSpeed's waits for its own streams are not seen: on a CPU it has none.
"""

import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from deepspeed.accelerator import get_accelerator
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ropewalk.train.trace import rules

_from_numpy = torch.from_numpy
READS = ("cpu", "tolist", "numpy")
"""Methods that copy to the host above the dispatcher, or not at all where the device is a CPU."""
HERE = ("/torch/", "host_waits.py", "contextlib.py")


class HostWaits(Counter[str]):
    """How often the host waited, by operation and place."""

    def __init__(self) -> None:
        super().__init__()
        self.host: weakref.WeakSet[Any] = weakref.WeakSet()

    def on_host(self, tensor: torch.Tensor) -> bool:
        return tensor.untyped_storage() in self.host

    def mark(self, tensor: Any) -> Any:
        for leaf in tree_leaves(tensor):
            if isinstance(leaf, torch.Tensor):
                self.host.add(leaf.untyped_storage())
        return tensor

    def unmark(self, tensor: torch.Tensor) -> torch.Tensor:
        self.host.discard(tensor.untyped_storage())
        return tensor

    def wait(self, operation: str) -> None:
        frames = (f for f in reversed(traceback.extract_stack()) if not _is_below(f.filename))
        frame = next(frames)
        self[f"{operation} at {'/'.join(frame.filename.split('/')[-3:])}:{frame.lineno}"] += 1


def _is_below(file: str) -> bool:
    return any(part in file for part in HERE)


class _Functions(TorchFunctionMode):
    def __init__(self, waits: HostWaits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "tensor":
            if kwargs.get("device") is not None:
                self.waits.wait(f"copy of a list ({name})")
                return func(*args, **kwargs)
            return self.waits.mark(func(*args, **kwargs))
        if name in READS and not self.waits.on_host(args[0]):
            self.waits.wait(name)
            if name == "cpu":
                return self.waits.mark(func(*args, **kwargs).clone())
        if name == "to" and any(isinstance(x, torch.device) for x in args):
            return self.waits.unmark(func(*args, **kwargs).clone())
        return func(*args, **kwargs)


class _Operations(TorchDispatchMode):
    def __init__(self, waits: HostWaits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        host = [self.waits.on_host(x) for x in tensors]
        if not all(host) and rules.reads_device(func, args):
            self.waits.wait(str(func))
        result = func(*args, **(kwargs or {}))
        if tensors and all(host):
            self.waits.mark(result)
        return result


@contextmanager
def counted() -> Iterator[HostWaits]:
    """Counts while open, on this thread."""
    waits = HostWaits()
    accelerator = type(get_accelerator())
    original: Callable[..., Any] = accelerator.synchronize

    def synchronize(*args: Any, **kwargs: Any) -> Any:
        waits.wait("synchronize")
        return original(*args, **kwargs)

    def from_numpy(array: Any) -> torch.Tensor:  # no mode sees it
        return waits.mark(_from_numpy(array))

    accelerator.synchronize, torch.from_numpy = synchronize, from_numpy
    try:
        with _Functions(waits), _Operations(waits):
            yield waits
    finally:
        accelerator.synchronize, torch.from_numpy = original, _from_numpy
