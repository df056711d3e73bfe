"""The time of a step as a range, and of its communication by group and payload."""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedConfig

from ropewalk.conf.hardware_file import Hardware
from ropewalk.train.cost.flops import ModelCost
from ropewalk.train.cost.layer_traffic import layer_traffic
from ropewalk.train.cost.step_time import Choices, Rates, StepTime, step_time
from ropewalk.train.cost.traffic import ModelSizes, ParallelLayout, collectives

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
    choices: Choices,
) -> dict[str, StepTime]:
    """`low`: every rate of the hardware file in full, with the fastest attention kernel. `likely`:
    the shares of them that models reach, with torch's own kernel."""
    layer = layer_traffic(config)
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
    """Each collective of a step: its group, the size of a message and their number, bytes sent and
    seconds alone."""
    rates = Rates.of(hardware, is_fast=False)
    return [
        {
            "kind": one.kind,
            "tensor": one.tensor,
            "ranks": one.ranks,
            "payload_bytes": round(one.message_bytes),
            "times": one.times * one.messages,
            "sent_bytes": round(one.bytes_sent),
            "link": "network" if one.ranks > hardware.gpus_per_node else "node",
            "seconds": rates.seconds_of(one),
        }
        for one in collectives(sizes, layout)
    ]
