"""The seconds of a training step by arithmetic: counted work over rates that others have reached.

Work comes from flops.py, traffic.py and layer_traffic.py, which count this code's own operations.
Rates come from `Rates`, each with its origin. Nothing here is measured by us; docs/performance.md
has the table, beside published figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ropewalk.train.cost.flops import ModelCost
from ropewalk.train.cost.layer_traffic import LayerTraffic
from ropewalk.train.cost.traffic import (
    Collective,
    ModelSizes,
    ParallelLayout,
    collectives,
    memory_traffic,
)


@dataclass(frozen=True)
class KernelRates:
    """FLOP/s that an attention kernel reaches on causal heads of 128 at long lengths."""

    name: str
    forward: float
    backward: float


# H100 SXM, bf16, head size 128, causal, from 16K on: assumed, after what the FlashAttention-3 paper
# (arXiv 2407.08608) reports of both
FLASH_2 = KernelRates("flash-attn 2 or varlen_attn", 380e12, 320e12)
FLASH_3 = KernelRates("flash-attn 3", 640e12, 530e12)


@dataclass(frozen=True)
class Rates:
    """What one device reaches, as opposed to its data sheet."""

    attention: KernelRates
    peak_flops: float = 989.4e12
    """Dense bf16 of the data sheet: what MFU is a share of."""
    product_flops: float = 680e12
    """Matrix products: assumed, 86% of the 794e12 that the best square product reaches on an H100
    (ml-engineering, "Maximum Achievable Matmul FLOPS")."""
    memory: float = 2.7e12
    """Bytes a second of elementwise kernels: assumed, 80% of the data sheet's 3.35e12."""
    link: float = 370e9
    """Bytes a second that a device sends inside its node: assumed, 82% of NVLink's 450e9 one
    way."""
    network: float = 45e9
    """Bytes a second that a device sends to other nodes: assumed, 90% of 400 Gbit/s."""
    node_size: int = 8
    launch_gap: float = 0.01
    """Seconds a micro-step in which the device waits for the host: one wait, then a full queue."""


@dataclass(frozen=True)
class Choices:
    """Settings of train.memory and of ZeRO that change the time but not the mathematics."""

    attention_kept: bool = True
    """train.memory.keep_attention; counts with activation checkpointing alone."""
    fused: bool = False
    """train.memory.compile: norms and MLP as single kernels; rotary embeddings stay eager."""
    overlapped: bool = True
    """Gradients are reduced and weights gathered while the device computes."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of each term of a step on each device, and the model FLOPs of all devices."""

    terms: dict[str, float]
    model_flops: float
    devices: int
    peak_flops: float

    @property
    def seconds(self) -> float:
        return sum(self.terms.values())

    @property
    def mfu(self) -> float:
        """Share of the data sheet's FLOP/s that the model's mathematics uses."""
        return self.model_flops / (self.seconds * self.devices * self.peak_flops)


def step_time(
    cost: ModelCost,
    sizes: ModelSizes,
    layer: LayerTraffic,
    layout: ParallelLayout,
    rates: Rates,
    choices: Choices,
    lengths: Sequence[int],
) -> StepTime:
    """The terms of one step.

    `layer`: the elementwise bytes of a layer, fused ones where `choices.fused` is set. `lengths`:
    tokens of the documents of one micro-batch of one data-parallel group.
    """
    steps, ranks = layout.accumulation_steps, layout.sp_size
    tokens, labels = sum(lengths), sum(lengths) - len(lengths)
    attention = sum(one.flops(lengths) for one in cost.layers) / ranks * steps
    linear = 2 * cost.matrices * tokens / ranks * steps
    head = 2 * cost.head * labels / ranks * steps
    again = layout.checkpointing
    terms = {
        "attention, forward": attention / rates.attention.forward,
        "attention, computed again": (again and not choices.attention_kept)
        * attention
        / rates.attention.forward,
        "attention, backward": 2.5 * attention / rates.attention.backward,
        "linear layers": (3 + again) * linear / rates.product_flops,
        "norms, rotary, activations": sizes.layers
        * layout.rank_tokens
        * steps
        * ((1 + again) * layer.forward + layer.backward)
        / rates.memory,
        "loss and head": 3 * head / rates.product_flops
        + memory_traffic(sizes, layout)["head"] / rates.memory,
        "optimizer": memory_traffic(sizes, layout)["optimizer"] / rates.memory,
        "waits for the host": steps * rates.launch_gap,
    }
    return StepTime(
        terms | _communication(sizes, layout, rates, choices, sum(terms.values())),
        model_flops=cost.training_flops(lengths, labels) * steps * layout.dp_size,
        devices=layout.world_size,
        peak_flops=rates.peak_flops,
    )


def _communication(
    sizes: ModelSizes, layout: ParallelLayout, rates: Rates, choices: Choices, compute: float
) -> dict[str, float]:
    """Exposed seconds: heads are exchanged between two kernels that need them, so in full; the
    rest only as far as it takes longer than three quarters of the compute, where it is
    overlapped."""
    seconds = {"exchange of heads": 0.0, "gradients and weights": 0.0}
    for one in collectives(sizes, layout):
        exchange = one.kind == "all_to_all"
        name = "exchange of heads" if exchange else "gradients and weights"
        seconds[name] += _seconds(one, rates)
    if choices.overlapped:
        hidden = 0.75 * compute
        seconds["gradients and weights"] = max(0.0, seconds["gradients and weights"] - hidden)
    return seconds


def _seconds(collective: Collective, rates: Rates) -> float:
    """Rings that leave the node send through it once for each node: the slowest link counts."""
    outside = collective.ranks > rates.node_size
    return collective.bytes_sent / (rates.network if outside else rates.link)
