"""What is traced, what comes back, and what is wrong with a step: plain values, as JSON."""

from dataclasses import asdict, dataclass, field
from typing import Any

from ropewalk.conf.errors import RopewalkError


class TraceError(RopewalkError):
    """A step that could not be traced to its end."""


class HostWaitError(TraceError):
    """The host waits for the device inside a forward or a backward pass."""


class MixedDevicesError(TraceError):
    """An operation gets tensors of the host and of the device."""


@dataclass(frozen=True)
class StepPlan:
    """One optimizer step of one rank."""

    model: dict[str, Any]
    """The model's config, as in its config.json."""
    documents: tuple[int, ...]
    """Tokens of each document of a micro-batch's row, in order: of the whole row where several
    ranks share it."""
    train: dict[str, Any] = field(default_factory=dict)
    """Settings of the section `train` that are not at their default."""
    world_size: int = 1
    """Ranks over which ZeRO partitions; `train.sp_size` of them share a row."""
    micro_batches: int = 1

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "StepPlan":
        return cls(**{**values, "documents": tuple(values["documents"])})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class StepTrace:
    """What one step does on one rank's device. Bytes are rounded as torch's allocator does."""

    parameters: int
    """Elements of the whole model."""
    operations: int
    """That the device runs, views included."""
    allocations: int
    peak_bytes: int
    peak_phase: str
    """`activations` (the forward pass), `backward` or `optimizer`."""
    bytes_at_peak: dict[str, int]
    """By component: parameters, gradients, optimizer, inputs, activations (made in the forward
    pass and alive), backward (recomputed, or made there), workspace (inside a kernel)."""
    bytes_at_rest: dict[str, int]
    """By component, after the step."""
    product_flops: int
    """Of matrix products, recomputation included."""
    attention_flops: int
    waits: dict[str, int]
    """Outside the passes: how often the host waits for the device, by operation and place."""
    collectives: list[dict[str, Any]]
    """As `cost.traffic.Collective`, by arithmetic."""
    exchanges: list[dict[str, Any]]
    """Collectives in the model's own operations, as traced: `operation`, `bytes`, `times`."""
    host_bytes: int
    """Copied to host memory."""
    seconds: float
    """That the trace took."""
