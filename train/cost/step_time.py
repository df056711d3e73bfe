"""The seconds of a training step by arithmetic: counted work over rates that others have reached.

Work comes from flops.py, traffic.py and layer_traffic.py, which count this code's own operations.
Rates come from `Rates`, each with its origin. Nothing here is measured by us; docs/performance.md
has the table, beside published figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ropewalk.conf import hardware_file
from ropewalk.conf.hardware_file import Hardware, Link
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


PRODUCT_SHARE = 680 / 794
"""Of the best square product's rate: what a model's products reach, assumed."""
MEMORY_SHARE = 2.7 / 3.35
"""Of the data sheet's bandwidth: what elementwise kernels reach, assumed."""
LINK_SHARE, NETWORK_SHARE = 370 / 450, 0.9
"""Of the data sheets of the links, one way: assumed."""

H100 = hardware_file.load("h100")


def kernel_rates(hardware: Hardware, is_fast: bool) -> KernelRates:
    """Of torch's own varlen kernel, or of the fastest kernel of the device."""
    if is_fast:
        forward = hardware.fast_attention_forward_tflops
        backward = hardware.fast_attention_backward_tflops
        return KernelRates("flash-attn 3", forward.value * 1e12, backward.value * 1e12)
    forward, backward = hardware.attention_forward_tflops, hardware.attention_backward_tflops
    return KernelRates("flash-attn 2 or varlen_attn", forward.value * 1e12, backward.value * 1e12)


FLASH_2, FLASH_3 = (kernel_rates(H100, is_fast) for is_fast in (False, True))
"""Of an H100."""


@dataclass(frozen=True)
class Rates:
    """What one device reaches, as opposed to its data sheet; an H100's where nothing is given."""

    attention: KernelRates
    peak_flops: float = H100.bf16_tflops.value * 1e12
    """Dense bf16 of the data sheet: what MFU is a share of."""
    product_flops: float = H100.matmul_tflops.value * 1e12 * PRODUCT_SHARE
    """Matrix products."""
    memory: float = H100.memory_tb_s.value * 1e12 * MEMORY_SHARE
    """Bytes a second of elementwise kernels."""
    link: float = H100.link.gb_s.value * 1e9 * LINK_SHARE
    """Bytes a second that a device sends inside its node."""
    network: float = H100.network.gb_s.value * 1e9 * NETWORK_SHARE
    """Bytes a second that a device sends to other nodes."""
    link_curve: Link | None = None
    """What was measured by the size of a message, in place of `link`; None: one rate for all."""
    network_curve: Link | None = None
    """The same in place of `network`."""
    node_size: int = H100.gpus_per_node
    launch_gap: float = 0.01
    """Seconds a micro-step in which the device waits for the host: one wait, then a full queue."""

    @classmethod
    def of(cls, hardware: Hardware, is_fast: bool, is_ceiling: bool = False) -> "Rates":
        """A device's, with its fastest attention kernel or torch's own. `is_ceiling`: the figures
        of its file in full, which no model reaches."""
        shares = (PRODUCT_SHARE, MEMORY_SHARE, LINK_SHARE, NETWORK_SHARE)
        product, memory, link, network = (1.0,) * 4 if is_ceiling else shares
        return cls(
            kernel_rates(hardware, is_fast),
            peak_flops=hardware.bf16_tflops.value * 1e12,
            product_flops=hardware.matmul_tflops.value * 1e12 * product,
            memory=hardware.memory_tb_s.value * 1e12 * memory,
            link=hardware.link.gb_s.value * 1e9 * link,
            network=hardware.network.gb_s.value * 1e9 * network,
            link_curve=None if is_ceiling else _curve(hardware.link),
            network_curve=None if is_ceiling else _curve(hardware.network),
            node_size=hardware.gpus_per_node,
            launch_gap=0.0 if is_ceiling else 0.01,
        )

    def seconds_of(self, collective: Collective) -> float:
        """Alone, by the slower of the links. Rings leave each node once, through all of its ports;
        of an all-to-all every rank sends what is for other nodes through its own."""
        inside = collective.bytes_sent / self._rate(collective, self.link, self.link_curve)
        nodes = -(-collective.ranks // self.node_size)
        if nodes == 1:
            return inside
        if collective.kind == "all_to_all":
            others = (collective.ranks - self.node_size) / (collective.ranks - 1)
            sent = others * collective.bytes_sent
        else:
            sent = collective.rounds * collective.payload * (nodes - 1) / nodes / self.node_size
        return max(inside, sent / self._rate(collective, self.network, self.network_curve))

    @staticmethod
    def _rate(collective: Collective, rate: float, curve: Link | None) -> float:
        """Bytes a second."""
        return rate if curve is None else curve.rate_gb_s(collective.message_bytes) * 1e9


def _curve(link: Link) -> Link | None:
    return link if link.payloads_mib else None


@dataclass(frozen=True)
class Choices:
    """Settings of train.memory and of ZeRO that change the time but not the mathematics."""

    attention_kept: bool = True
    """train.memory.keep_attention; counts with activation checkpointing alone."""
    tiled_elements: int = 0
    """Of MLPs that are computed in tiles, which their backward pass computes again
    (train.memory.tile_mlp_tokens)."""
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
    trained = 2 * cost.trainable * tokens / ranks * steps
    tiled = 2 * choices.tiled_elements * tokens / ranks * steps
    head = 2 * cost.head * labels / ranks * steps
    again = layout.checkpointing
    terms = {
        "attention, forward": attention / rates.attention.forward,
        "attention, computed again": (again and not choices.attention_kept)
        * attention
        / rates.attention.forward,
        "attention, backward": 2.5 * attention / rates.attention.backward,
        # backward, a product for each input's gradient, and one for that of each trained weight
        "linear layers": ((2 + again) * linear + trained + tiled) / rates.product_flops,
        "norms, rotary, activations": sizes.layers
        * layout.rank_tokens
        * steps
        * ((1 + again) * layer.forward + layer.backward)
        / rates.memory,
        "loss and head": (2 + cost.head_trainable) * head / rates.product_flops
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
        seconds[name] += rates.seconds_of(one)
    if choices.overlapped:
        hidden = 0.75 * compute
        seconds["gradients and weights"] = max(0.0, seconds["gradients and weights"] - hidden)
    return seconds
