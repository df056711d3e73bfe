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
    device_bytes: int = 0
    """Of the device, and `host_bytes` of a rank's share of its machine: what decides whether
    attention is kept where `train.memory.keep_attention` is unset; 0: it is not."""
    host_bytes: int = 0
    every_layer: bool = False
    """Trace all layers, where few would do."""

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
    """`forward`, `loss`, `backward` or `optimizer`."""
    bytes_at_peak: dict[str, int]
    """By component: parameters, gathered weights, gradients, optimizer, gradient buckets, inputs,
    activations (made in the forward pass and alive), attention, exchange of heads, loss, layer
    (recomputed in the backward pass, or made there), attention workspace."""
    bytes_at_rest: dict[str, int]
    """By component, after the step."""
    reserved: dict[str, int]
    """The most that torch's allocator holds: `native` and `expandable` segments."""
    offloaded_bytes: int
    """Of activations in host memory, at the most."""
    curve: list[dict[str, Any]]
    """As `events.Usage`."""
    kept_ops: list[str]
    """Attention's operations whose output the layers keep."""
    traced_layers: int
    """All, or some of which the others were repeated."""
    product_flops: int
    """Of matrix products, recomputation included."""
    attention_flops: int
    waits: dict[str, int]
    """Outside the passes: how often the host waits for the device, by operation and place."""
    large: dict[str, int]
    """Tensors of S x S or S x V elements, by operation, place and shape."""
    gathers: dict[str, int]
    """Of ZeRO 3's weights, `on demand` and `ahead`: how often."""
    collectives: list[dict[str, Any]]
    """As `cost.traffic.Collective`, by arithmetic."""
    exchanges: list[dict[str, Any]]
    """Collectives in the model's own operations, as traced: `operation`, `bytes`, `times`."""
    host_bytes: int
    """Copied to host memory."""
    seconds: float
    """That the trace took."""
