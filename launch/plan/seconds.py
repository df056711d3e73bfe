"""The time of a step as a range, and of its communication by group and payload."""

import math
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig

from ropewalk.conf.hardware_file import Hardware, Link
from ropewalk.train.cost.flops import ModelCost
from ropewalk.train.cost.layer_traffic import layer_traffic
from ropewalk.train.cost.step_time import Choices, Rates, StepTime, step_time
from ropewalk.train.cost.traffic import Collective, ModelSizes, ParallelLayout, collectives

SPREAD = 1.25
"""A step may take this much longer than by assumed rates: as far as published runs are from them
(docs/performance.md)."""


def step_range(
    cost: ModelCost,
    sizes: ModelSizes,
    config: PreTrainedConfig,
    layout: ParallelLayout,
    hardware: Hardware,
    lengths: Sequence[int],
    attention_kept: bool,
) -> dict[str, StepTime]:
    """`low`: every rate of the hardware file in full, with the fastest attention kernel. `likely`:
    the shares of them that models reach, with torch's own kernel."""
    layer, choices = layer_traffic(config), Choices(attention_kept=attention_kept)
    rates = {
        "low": Rates.of(hardware, is_fast=True, is_ceiling=True),
        "likely": Rates.of(hardware, is_fast=False),
    }
    return {
        name: step_time(cost, sizes, layer, layout, rate, choices, lengths)
        for name, rate in rates.items()
    }


def communication(
    sizes: ModelSizes, layout: ParallelLayout, hardware: Hardware
) -> list[dict[str, Any]]:
    """Each collective of a step: its group, payload, times, bytes sent and seconds alone."""
    return [
        {
            "kind": one.kind,
            "tensor": one.tensor,
            "ranks": one.ranks,
            "payload_bytes": one.bytes,
            "times": one.times,
            "sent_bytes": round(one.bytes_sent),
            "link": "network" if one.ranks > hardware.gpus_per_node else "node",
            "seconds": _seconds(one, hardware),
        }
        for one in collectives(sizes, layout)
    ]


def _seconds(one: Collective, hardware: Hardware) -> float:
    link = hardware.network if one.ranks > hardware.gpus_per_node else hardware.link
    return one.bytes_sent / (rate_gb_s(link, one.bytes) * 1e9)


def rate_gb_s(link: Link, payload_bytes: int) -> float:
    """The measured rate at a payload, between two of them along a line in logarithms, and never
    above the data sheet; without a curve the data sheet's."""
    points = list(zip(link.payloads_mib, link.rates_gb_s, strict=True))
    if not points:
        return link.gb_s.value
    size = max(payload_bytes / 2**20, 1e-6)
    if size <= points[0][0]:
        return min(points[0][1], link.gb_s.value)
    for (left, low), (right, high) in zip(points, points[1:], strict=False):
        if size <= right:
            share = math.log(size / left) / math.log(right / left)
            return min(low * (high / low) ** share, link.gb_s.value)
    return min(points[-1][1], link.gb_s.value)
