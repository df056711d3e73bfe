"""Whether keeping attention's output fits the device: arithmetic from shapes, before a step runs.

Counted for one rank in the backward pass of the last layer, when the checkpoints of all layers are
still held. Sizes that depend on the kernel and the allocator are not counted; `RESERVED_SHARE` of
the device is left for them.
"""

import math
import os
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from ropewalk.conf.schema import Config
from ropewalk.conf.train import TrainConfig
from ropewalk.train.cost.traffic import FP32, ModelSizes, ParallelLayout, model_sizes
from ropewalk.train.cost.zero_stage import layer_inputs, layout_of, stage_cost
from ropewalk.train.loss import chunk_tokens
from ropewalk.train.memory.kept_attention import ATTENTION_OPS, EXCHANGE_OPS
from ropewalk.train.memory.offloaded_activations import LAYERS_IN_FLIGHT
from ropewalk.train.zero.mesh import Mesh

RESERVED_SHARE = 0.15
"""Of a device: its context, communication buffers, and memory that the allocator cannot reuse."""
GATHERED_LAYERS = 2
"""Whose weights ZeRO 3 holds at a time: the one that computes, and the next."""
MOMENT_BYTES = {"adamw": 8, "adamw_8bit": 2}
"""Of an element's two moments."""


@dataclass(frozen=True)
class KeptBytes:
    """What keeping adds to one rank's memory, of all layers."""

    attention: int
    exchange: int
    """The sequence exchanged for heads, before and after attention; 0 without Ulysses, and where
    keys are gathered as well, which are exchanged again."""


def kept_bytes(sizes: ModelSizes, layout: ParallelLayout) -> KeptBytes:
    """Bytes that one rank keeps of all layers.

    Of attention (S / P, H, D) in the compute dtype and its log-sum-exp (S / P, H) in fp32; Ulysses
    gives each of P ranks all S tokens of H / P heads, which is as much. Of the exchange the queries
    and the attended values (H heads), keys and values (K heads, repeated to a multiple of P).
    """
    tokens, head = layout.rank_tokens, sizes.head_dim * layout.element_bytes
    attention = sizes.layers * tokens * sizes.heads * (head + FP32)
    if layout.sp_size == 1 or sizes.heads % layout.sp_size:
        return KeptBytes(attention, 0)
    kv_heads = math.lcm(sizes.kv_heads, layout.sp_size)
    return KeptBytes(attention, sizes.layers * tokens * 2 * (sizes.heads + kv_heads) * head)


def step_bytes(sizes: ModelSizes, layout: ParallelLayout, train: TrainConfig) -> dict[str, int]:
    """Bytes of one rank at the peak of a step without kept attention, by what they hold.

    A layer's own tensors: the inputs and outputs of its products and their gradients, and the
    hidden states of both norms in fp32.
    """
    element, tokens, memory = layout.element_bytes, layout.rank_tokens, train.memory
    moments = MOMENT_BYTES[train.optimizer.name]
    states = stage_cost(sizes, layout, moments, memory.offload_optimizer)
    gathered = GATHERED_LAYERS * sizes.matrices // sizes.layers + sizes.vocabulary * sizes.hidden
    share = LAYERS_IN_FLIGHT / sizes.layers if memory.offload_activations else 1
    chunk = min(tokens, layout.loss_chunk or tokens)
    return {
        "states": states.device - memory.offload_params * states.weights,
        "gathered": gathered * element if layout.zero_stage == 3 else 0,
        "checkpoints": int(share * layer_inputs(sizes, layout)),
        "layer": tokens * (2 * sizes.operands // sizes.layers * element + 4 * sizes.hidden * FP32),
        # a chunk's logits and their softmax in fp32; gradients of hidden states and of the head
        "loss": 2 * chunk * sizes.vocabulary * FP32
        + tokens * sizes.hidden * element
        + sizes.vocabulary * sizes.hidden * FP32,
    }


@dataclass(frozen=True)
class Decision:
    """What is kept, and why, for the log."""

    kept_ops: frozenset[str]
    reason: str


def decide(
    train: TrainConfig,
    sizes: ModelSizes,
    layout: ParallelLayout,
    device_bytes: int,
    host_bytes: int,
) -> Decision:
    """What the layers keep under `train.memory.keep_attention`, which decides where it is set.

    `device_bytes` of one device, `host_bytes` of a rank's share of its machine. The exchange is
    kept only where it fits as well: for the same memory it saves a hundredth (links inside a
    machine) to a tenth (a network) of the time that attention does.
    """
    kept = kept_bytes(sizes, layout)
    room, where = free_bytes(train, sizes, layout, device_bytes, host_bytes)
    free = f"{_gb(room)} are free on the {where} by arithmetic"
    if train.memory.keep_attention is None and kept.attention > room:
        reason = (
            "attention is computed again in the backward pass: its output would take "
            f"{_gb(kept.attention)}, and {free}"
        )
        return Decision(frozenset(), reason)
    both = kept.attention + kept.exchange
    if kept.exchange and both <= room:
        reason = f"attention and its exchange of heads are kept: {_gb(both)}; {free}"
        return Decision(ATTENTION_OPS | EXCHANGE_OPS, reason)
    return Decision(ATTENTION_OPS, f"attention's output is kept: {_gb(kept.attention)}; {free}")


def free_bytes(
    train: TrainConfig,
    sizes: ModelSizes,
    layout: ParallelLayout,
    device_bytes: int,
    host_bytes: int,
) -> tuple[int, str]:
    """Bytes that a rank has for kept attention, and where: the device, or with offloading the host.

    With offloading some layers are on the device at a time; without room for them there is none.
    """
    kept = kept_bytes(sizes, layout)
    used = sum(step_bytes(sizes, layout, train).values())
    on_device = max(0, int(device_bytes * (1 - RESERVED_SHARE)) - used)
    in_flight = (kept.attention + kept.exchange) * LAYERS_IN_FLIGHT // sizes.layers
    if not train.memory.offload_activations or on_device < in_flight:
        return on_device, "device"
    inputs = layer_inputs(sizes, layout)
    return max(0, int(host_bytes * (1 - RESERVED_SHARE)) - inputs), "host"


def _gb(size: int) -> str:
    """`4.3 GB`, or `3.1 MB` for a small model."""
    return f"{size / 1e9:.1f} GB" if size >= 5e7 else f"{size / 1e6:.1f} MB"


def micro_step(model: PreTrainedModel, config: Config, mesh: Mesh) -> ParallelLayout:
    """One micro-step of a training, with the loss in chunks as this device computes it."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    chunk = chunk_tokens(model_sizes(model).vocabulary, device)
    return replace(layout_of(config, mesh, accumulation_steps=1), loss_chunk=chunk)


def device_memory(world_size: int) -> tuple[int, int]:
    """Bytes of this rank's device, and of its share of the machine's memory.

    Without a GPU they are the same. The machine's ranks are those that torchrun or DeepSpeed's
    launcher name, or all.
    """
    named = (os.environ.get(name) for name in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE"))
    ranks = int(next(filter(None, named), world_size))
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // ranks
    if not torch.cuda.is_available():
        return host, host
    return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory, host
