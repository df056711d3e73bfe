"""The dispatch mode of a trace: tensors of the host are real, those of the device are fake.

What the host computes (borders, plans, sizes) so has its true values, and each crossing between
host and device is seen. A value that is read from the device is 1.
"""

import traceback
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, unset_fake_temporarily
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ropewalk.train.trace import flops, rules
from ropewalk.train.trace.events import Parameter
from ropewalk.train.trace.live_bytes import LiveBytes
from ropewalk.train.trace.plan import HostWaitError, MixedDevicesError

aten = torch.ops.aten
COLLECTIVES = ("c10d", "_c10d_functional")
COPIES = (aten._to_copy.default, aten.copy_.default)
OUTSIDE = ("/torch/", "/trace/tracer.py", "contextlib.py")
"""Parts of the names of files that are not the place of a fault."""


class Tracer(TorchDispatchMode):
    """Enter it inside a FakeTensorMode, with `Reads(tracer)` around both."""

    def __init__(self, device: torch.device, documents: Sequence[int]) -> None:
        super().__init__()
        self.device, self.live = device, LiveBytes()
        self.counts = self.live.counts
        """Of operations, FLOPs, `host_bytes` (copied to host memory) and collectives, by
        (operation, bytes of the first tensor)."""
        self.flops = flops.FlopCount(documents, self.counts)
        self.waits: Counter[str] = Counter()
        self.waits_allowed = True
        self.weights: dict[int, Parameter] = {}
        """Weights by their storage, whose uses are noted."""
        self.large: Counter[str] = Counter()
        """Tensors of S x S or S x V elements, with the operation's place: of S tokens that a rank
        has, and `vocabulary`."""
        self.tokens, self.vocabulary = sum(documents), 0
        self.widths: set[int] = set()
        """The sizes of the model's weights, and a rank's share of them."""
        self._pinned: set[int] = set()

    def __torch_dispatch__(
        self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace in ("prim", "profiler"):
            return func(*args, **kwargs)
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if not self._on_device(tensors, kwargs):
            return self._on_host(func, args, kwargs, tensors)
        self.counts["operations"] += 1
        if self.weights:
            self._note_weights(tensors)
        result = self._answer(func, args, kwargs, tensors)
        component = _component(func)
        for leaf in tree_leaves(result):
            if isinstance(leaf, FakeTensor) and leaf.fake_device.type == self.device.type:
                self.live.add_new(leaf, component)
                if self._is_large(leaf.shape):
                    self.large[f"{func} at {place()} makes {tuple(leaf.shape)}"] += 1
        return result

    def _note_weights(self, tensors: list[torch.Tensor]) -> None:
        for tensor in tensors:
            if (name := self.weights.get(tensor.untyped_storage()._cdata)) is not None:
                self.live.use(name)

    def _is_large(self, shape: Sequence[int]) -> bool:
        return rules.is_large(shape, self.tokens, self.vocabulary, self.widths)

    def wait(self, operation: str) -> None:
        """Note that the host waits. Raises: HostWaitError where it must not."""
        where = place()
        if not self.waits_allowed:
            raise HostWaitError(f"{operation} at {where} makes the host wait for the device")
        self.waits[f"{operation} at {where}"] += 1

    def _on_device(self, tensors: list[torch.Tensor], kwargs: dict[str, Any]) -> bool:
        if any(x.device.type == self.device.type for x in tensors):
            return True
        target = kwargs.get("device")
        return target is not None and torch.device(target).type == self.device.type

    def _on_host(
        self, func: OpOverload, args: Any, kwargs: dict[str, Any], tensors: list[torch.Tensor]
    ) -> Any:
        """Host tensors are real. Pinned memory needs a driver, so it is only remembered."""
        if func is aten.is_pinned.default:
            return args[0].untyped_storage()._cdata in self._pinned
        with unset_fake_temporarily():
            if func is aten._pin_memory.default:
                return self._pin(args[0].clone())
            pinned = kwargs.get("pin_memory")
            result = func(*args, **(kwargs | ({"pin_memory": False} if pinned else {})))
            return self._pin(result) if pinned else result

    def _pin(self, tensor: torch.Tensor) -> torch.Tensor:
        self._pinned.add(tensor.untyped_storage()._cdata)
        return tensor

    def _answer(
        self, func: OpOverload, args: Any, kwargs: dict[str, Any], tensors: list[torch.Tensor]
    ) -> Any:
        """The result of an operation on the device, fake."""
        host = [x for x in tensors if x.device.type == "cpu"]
        if func is aten.empty_like.default and (host or kwargs.get("device") is not None):
            return self._empty(func, args, kwargs)
        if func in COPIES and _crosses(func, args, kwargs, self.device):
            return self._copy(func, args, kwargs)
        if rules.reads_device(func, args):
            self.wait(str(func))
            return _read(func, args)
        if host:
            self._check_devices(func, host)
            if func in rules.INDEXED:
                # the kernel needs the index on the device, where a copy from the host brings it
                self.wait(f"{func} by an index on the host")
        result = func(*args, **kwargs)
        self.flops.add(func, args, kwargs, result)
        self.live.add_workspace(flops.workspace(func, args))
        if func.namespace in COLLECTIVES or "all_to_all" in func._schema.name:
            self.counts[func._schema.name, tensors[0].nbytes] += 1
        return result

    def _empty(self, func: OpOverload, args: Any, kwargs: dict[str, Any]) -> torch.Tensor:
        """An empty tensor of another's shape, on the other side. Host memory is fake too."""
        pinned = kwargs.get("pin_memory")
        result: torch.Tensor = func(*args, **(kwargs | {"pin_memory": False}))
        if result.device.type == "cpu" and pinned:
            self._pinned.add(result.untyped_storage()._cdata)
            self.live.add_host(result)
        return result

    def _check_devices(self, func: OpOverload, host: list[torch.Tensor]) -> None:
        """Fake tensors check ordinary operations only: a kernel of a custom one sees addresses."""
        custom = func.namespace not in ("aten", "c10d")
        wrong = [x for x in host if custom or x.dim()]
        if wrong and func not in rules.INDEXED:
            shapes = ", ".join(str(tuple(x.shape)) for x in wrong)
            raise MixedDevicesError(
                f"{func} at {place()} gets tensors of the host, {shapes}, beside the device's"
            )

    def _copy(self, func: OpOverload, args: Any, kwargs: dict[str, Any]) -> Any:
        """A copy between host and device."""
        source = args[1] if func is aten.copy_.default else args[0]
        queued = bool(kwargs.get("non_blocking", len(args) > 2 and args[2]))
        from_host = source.device.type == "cpu"
        host = source if from_host else args[0] if func is aten.copy_.default else None
        is_pinned = host is not None and host.untyped_storage()._cdata in self._pinned
        if not (queued and is_pinned) and source.dim() + from_host:
            self.wait("copy to the device" if from_host else "copy to the host")
        if not from_host:
            self.counts["host_bytes"] += source.nbytes
        if func is aten.copy_.default:
            return args[0]
        dtype = kwargs.get("dtype") or source.dtype
        if from_host:
            return torch.empty(source.shape, dtype=dtype, device=self.device)
        with unset_fake_temporarily():
            return torch.ones(source.shape, dtype=dtype)


class Reads(TorchFunctionMode):
    """Reads of whole tensors, which the dispatcher would see as one read for each element."""

    def __init__(self, tracer: Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, device = kwargs or {}, self.tracer.device
        target = kwargs.get("device")
        if func is torch.tensor and target is not None and torch.device(target).type == device.type:
            self.tracer.wait("a list copied to the device")
            with unset_fake_temporarily():
                host = torch.tensor(*args, **{k: v for k, v in kwargs.items() if k != "device"})
            return torch.empty(host.shape, dtype=host.dtype, device=device)
        return func(*args, **kwargs)

    def __enter__(self) -> "Reads":
        self._tolist = FakeTensor.tolist
        setattr(FakeTensor, "tolist", lambda x: x.cpu().tolist())  # noqa: B010
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        setattr(FakeTensor, "tolist", self._tolist)  # noqa: B010
        super().__exit__(*error)


def _component(func: OpOverload) -> str | None:
    """What an operation's results are, where its name says it."""
    name = func._schema.name
    if name in (flops.FORWARD, flops.BACKWARD):
        return "attention"
    return "exchange of heads" if "all_to_all" in name else None


def place() -> str:
    """The innermost line of the stack outside torch and the trace."""
    frames = reversed(traceback.extract_stack())
    frame = next(f for f in frames if not any(part in f.filename for part in OUTSIDE))
    return f"{'/'.join(frame.filename.split('/')[-3:])}:{frame.lineno}"


def _crosses(func: OpOverload, args: Any, kwargs: dict[str, Any], device: torch.device) -> bool:
    target = args[0].device if func is aten.copy_.default else kwargs.get("device")
    source = args[1] if func is aten.copy_.default else args[0]
    return target is not None and torch.device(target).type != source.device.type


def _read(func: OpOverload, args: Any) -> Any:
    """A result that depends on values: 1, and of what is selected all."""
    if func is aten._local_scalar_dense.default:
        dtype = args[0].dtype
        return True if dtype == torch.bool else 1.0 if dtype.is_floating_point else 1
    if func in (aten.is_nonzero.default, aten.equal.default):
        return True
    if func is aten.nonzero.default:
        shape = (args[0].numel(), args[0].dim())
        return torch.empty(shape, dtype=torch.int64, device=args[0].device)
    if func is aten.masked_select.default:
        return args[0].new_empty((args[0].numel(),))
    if func is aten.index.Tensor:
        mask = rules.indices(args)[0]
        return args[0].new_empty((mask.numel(), *args[0].shape[mask.dim() :]))
    if func in rules.INDEXED:
        return args[0]
    raise HostWaitError(f"{func} at {place()} has an output whose size only the device knows")
