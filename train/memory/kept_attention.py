"""Selective activation checkpointing that keeps what attention computed.

A checkpointed decoder layer is computed again in the backward pass. At long sequences most of that
is attention, whose output is one tensor as large as the layer's input. Here that output, and the
log-sum-exp that its backward pass reads, are kept: the queries, keys and values are computed again,
their attention is not. torch's selective checkpointing does it, around the attention kernel alone:
around a whole layer it would number every operation, and ZeRO 3 gathers weights by other operations
in the second pass than in the first.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache, wraps
from types import TracebackType
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.log import log

ATTENTION_OPS = frozenset(
    {
        "torch_attn::_varlen_attn",
        "flash_attn::_flash_attn_varlen_forward",  # flash-attn 2
        "flash_attn_3::_flash_attn_forward",
        "flash_attn_3::fwd",  # of versions before the custom op around it
        "aten::_scaled_dot_product_flash_attention",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_efficient_attention",
        "aten::_scaled_dot_product_cudnn_attention",
        "aten::_scaled_dot_product_fused_attention_overrideable",  # other accelerators
    }
)
"""The forward operations of the kernels. Each returns its output and what its backward reads."""
EXCHANGE_OPS = frozenset({"deepspeed::dim_zero_all_to_all"})
"""The exchange of a sequence for heads around attention (Ulysses)."""

_current = threading.local()  # the backward pass of a device has a thread of its own


class KeptAttention:
    """What the layers of a model keep, and the proof that they keep something."""

    def __init__(self, kept_ops: frozenset[str] = ATTENTION_OPS, is_required: bool = True) -> None:
        """`is_required`: a layer of which nothing is kept is an error, not a warning."""
        self.kept_ops, self.is_required = kept_ops, is_required
        self.seen_ops: set[str] = set()
        """Operations of the last layer's attention, kept or not."""
        self.ran: set[str] = set()
        """Whether the last layer ran `attention`, and its `kernel`."""
        self.has_effect = True
        """False once a layer ran of which nothing could be kept."""

    def contexts(self) -> tuple["_Region", "_Region"]:
        """The `context_fn` of one checkpointed layer: its forward pass and its second one."""
        layer = _Layer(self)
        return _Region(layer, is_forward=True), _Region(layer, is_forward=False)

    def policy(self, context: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        """torch's policy: keep the outputs of `kept_ops`."""
        name = op_name(op)
        self.seen_ops.add(name)
        return (
            CheckpointPolicy.MUST_SAVE
            if name in self.kept_ops
            else CheckpointPolicy.PREFER_RECOMPUTE
        )

    def check_effect(self) -> None:
        """Call after a layer's forward pass: one of its operations must have been kept.

        A rank whose part of a sequence has no queries runs no kernel.
        Raises: ConfigError where that is required; else it is told once, and all is computed again.
        """
        is_kept = self.seen_ops & self.kept_ops & ATTENTION_OPS
        if is_kept or self.ran == {"attention"} or not self.has_effect:
            return
        ops = ", ".join(sorted(self.seen_ops)) or "none that torch's dispatcher sees"
        problem = (
            "train.memory.keep_attention is in effect; a layer's attention must run an operation "
            f"that is known to be kept, and this one runs: {ops}"
        )
        if self.is_required:
            raise ConfigError(f"{problem}; set train.memory.keep_attention=false")
        log.warning(f"{problem}; it is computed again in the backward pass")
        self.has_effect = False


@lru_cache(maxsize=1024)
def op_name(op: Any) -> str:
    """`aten::mm` of any overload of it."""
    return str(op.name()).partition(".")[0]


class _Layer:
    """One checkpointed layer in one pass: a pair of torch's modes for each call of its kernel."""

    def __init__(self, kept: KeptAttention) -> None:
        self.kept = kept
        self.modes: list[tuple[TorchDispatchMode, TorchDispatchMode]] = []
        self.calls = 0

    def forward_mode(self) -> TorchDispatchMode:
        forward, recompute = create_selective_checkpoint_contexts(self.kept.policy)
        # what `checkpoint` sets by its argument of this name on a mode that it is given itself
        forward.respect_saved_tensors_hooks = True
        self.modes.append((forward, recompute))
        return forward

    def recompute_mode(self) -> TorchDispatchMode:
        self.calls += 1
        return self.modes[self.calls - 1][1]


class _Region(AbstractContextManager[None]):
    """Around a layer: the kernel's calls inside are kept, or taken from what was kept."""

    def __init__(self, layer: _Layer, is_forward: bool) -> None:
        self.layer, self.is_forward = layer, is_forward
        self.outer: _Region | None = None

    def __enter__(self) -> None:
        self.outer = getattr(_current, "region", None)
        self.layer.calls = 0
        if self.is_forward:
            self.layer.kept.seen_ops.clear()
            self.layer.kept.ran.clear()
        _current.region = self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _current.region = self.outer
        if self.is_forward and error is None:
            self.layer.kept.check_effect()

    def mode(self) -> TorchDispatchMode:
        return self.layer.forward_mode() if self.is_forward else self.layer.recompute_mode()


def keepable(attention: Callable[..., Any]) -> Callable[..., Any]:
    """`attention`, whose outputs a layer under `KeptAttention.contexts` keeps; elsewhere itself."""

    @wraps(attention)
    def attend(*args: Any, **kwargs: Any) -> Any:
        region: _Region | None = getattr(_current, "region", None)
        if region is None:
            return attention(*args, **kwargs)
        region.layer.kept.ran.add("attention")
        with region.mode():
            return attention(*args, **kwargs)

    return attend


def noted(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """`kernel`, of whose operations one must be kept; it runs inside what is `keepable`."""

    @wraps(kernel)
    def attend(*args: Any, **kwargs: Any) -> Any:
        region: _Region | None = getattr(_current, "region", None)
        if region is not None:
            region.layer.kept.ran.add("kernel")
        return kernel(*args, **kwargs)

    return attend
