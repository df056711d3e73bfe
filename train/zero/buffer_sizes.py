"""How much ZeRO gathers and reduces at once, from a model's shapes. All sizes are in elements.

DeepSpeed's defaults are numbers for any model: of Llama-3-70B, ZeRO 3 would prefetch 6% of a layer,
and gather the first matrices of a layer a third time between its recomputation and its backward
pass; of a model of 100M parameters, buffers would take ten times the gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.train import TrainConfig
from ropewalk.train.optim.param_groups import is_adapter, layer_of
from ropewalk.train.zero.params import full_shape

# of a reduction: below, latency counts; above, only memory is lost (1 GB of a fp32 buffer)
SMALLEST_BUCKET, LARGEST_BUCKET = 25_000_000, 250_000_000
# of a parameter that ZeRO 2 reduces while it computes: two buffers of 1.25 GiB in bf16
LARGEST_OVERLAPPED = 5 << 27

# DeepSpeed's default: ZeRO 3 ends a tensor that the optimizer steps once it has as many
SUB_GROUP_SIZE = 1_000_000_000

Value = TypeVar("Value")


@dataclass(frozen=True)
class PartSizes:
    """Elements of a model's parts, of parameters before ZeRO 3 partitions them."""

    trained: int
    """Of all trained parameters."""
    layer: int
    """Of the largest decoder layer; of the whole model where no parameter's name has a number."""
    largest_outside: int
    """Of the largest parameter outside the layers: embeddings or output head."""
    largest_trained: int
    """Of the largest trained parameter."""
    small: int
    """Of the largest vector or adapter matrix, if all parameters up to its size are together no
    more than a layer; else of the largest vector."""


def part_sizes(model: nn.Module) -> PartSizes:
    """The sizes of a model's parts, from its parameters' names and shapes."""
    sizes = {name: full_shape(p).numel() for name, p in model.named_parameters()}
    trained = [sizes[name] for name, p in model.named_parameters() if p.requires_grad]
    layers: dict[int, int] = {}
    for name, size in sizes.items():
        if (layer := layer_of(name)) is not None:
            layers[layer] = layers.get(layer, 0) + size
    outside = [size for name, size in sizes.items() if layer_of(name) is None]
    layer_size = max(layers.values(), default=sum(sizes.values()))
    return PartSizes(
        trained=sum(trained),
        layer=layer_size,
        largest_outside=max(outside, default=0),
        largest_trained=max(trained, default=0),
        small=_small(model, sizes, layer_size),
    )


def _small(model: nn.Module, sizes: dict[str, int], limit: int) -> int:
    vectors = {name for name, p in model.named_parameters() if len(full_shape(p)) < 2}
    adapters = {name for name in sizes if is_adapter(name)}
    for names in (vectors | adapters, vectors):
        threshold = max((sizes[name] for name in names), default=0)
        if sum(size for size in sizes.values() if size <= threshold) <= limit:
            return threshold
    return 0


def longest_stepped_tensor(
    zero_stage: int, group_sizes: Sequence[int], largest_parameter: int, world_size: int
) -> int:
    """Elements of the longest tensor that the optimizer steps on a rank, or a bound on them.

    `group_sizes`: elements of each parameter group. ZeRO 1 and 2 flatten a group, pad it to an even
    number a rank, and step a rank's part as one tensor.
    """
    if zero_stage == 0:
        return largest_parameter
    part = 2 * -(-max(group_sizes, default=0) // (2 * world_size))
    if zero_stage == 3:
        return min(part, SUB_GROUP_SIZE + -(-largest_parameter // world_size))
    return part


def buffer_settings(train: TrainConfig, sizes: PartSizes, world_size: int) -> dict[str, Any]:
    """Keys of DeepSpeed's section `zero_optimization`; what `train.memory` sets is taken as it is.

    Raises: ConfigError where `zero_overlap_comm` is set and not safe.
    """
    if train.zero_stage == 0:
        return {}
    memory = train.memory
    overlap, bucket = _reduction(train, sizes, world_size)
    reduction = {"overlap_comm": overlap, "reduce_bucket_size": bucket}
    if train.zero_stage != 3:
        return reduction
    # the layer that computes and the one after it; around the loss, the head and the last layer
    live = sizes.layer + max(sizes.layer, sizes.largest_outside)
    return reduction | {
        "stage3_prefetch_bucket_size": _or(memory.zero_prefetch_bucket_size, sizes.layer),
        "stage3_max_live_parameters": _or(memory.zero_max_live_parameters, live),
        # from the recomputation of a layer's first matrix to its backward pass are two layers
        "stage3_max_reuse_distance": _or(memory.zero_max_reuse_distance, 2 * sizes.layer),
        "stage3_param_persistence_threshold": _or(memory.zero_persistence_threshold, sizes.small),
    }


def _reduction(train: TrainConfig, sizes: PartSizes, world_size: int) -> tuple[bool, int]:
    """Whether reductions overlap with the backward pass, and the elements of one."""
    bucket = min(max(sizes.layer, SMALLEST_BUCKET), LARGEST_BUCKET, max(sizes.trained, 1))
    overlap = world_size > 1 and not train.memory.offload_optimizer
    if train.zero_stage == 3:
        overlap = True
    elif train.zero_stage == 2 and overlap:
        overlap = sizes.largest_trained <= LARGEST_OVERLAPPED
        bucket = max(bucket, sizes.largest_trained) if overlap else bucket
    overlap = _or(train.memory.zero_overlap_comm, overlap)
    bucket = _or(train.memory.zero_reduce_bucket_size, bucket)
    # DeepSpeed reduces a gradient that does not fit the bucket from where it lies, and at ZeRO 2
    # frees it on the stream that computes, while the other one may still read it
    if train.zero_stage == 2 and overlap and bucket < sizes.largest_trained:
        raise ConfigError(
            f"train.memory.zero_overlap_comm is True; at ZeRO 2 every parameter must then fit "
            f"into a reduction of {bucket:,} elements, and the largest has "
            f"{sizes.largest_trained:,}; set "
            f"train.memory.zero_reduce_bucket_size={sizes.largest_trained}, or unset both"
        )
    return overlap, bucket


def _or(setting: Value | None, derived: Value) -> Value:
    return derived if setting is None else setting
