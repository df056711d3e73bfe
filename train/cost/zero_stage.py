"""What a ZeRO stage holds on a rank and sends in a step, and a stage that suits a training better.

DeepSpeed's tensors with our settings; a test counts those of its engines. In bf16 the gradients are
summed in fp32, whole at ZeRO 1. Weights that ZeRO 3 gathers for a layer, a gradient before it is
added, and buffers are left out, so that the figures are lower bounds.

    W ranks   S tokens of a rank's row   E hidden size
"""

from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from ropewalk.conf.schema import Config
from ropewalk.train.cost.traffic import FP32, ModelSizes, ParallelLayout, collectives, model_sizes
from ropewalk.train.zero.mesh import Mesh

GB = 1e9
# a stage is suggested for its traffic only where it sends at most this share
WORTH_A_CHANGE = 0.67


@dataclass(frozen=True)
class StageCost:
    """Bytes of a rank: on its device, in host memory, and sent in a step for ZeRO."""

    weights: int
    gradients: int
    optimizer: int
    """Master weights and moments."""
    host: int
    sent: int

    @property
    def device(self) -> int:
        return self.weights + self.gradients + self.optimizer


def stage_cost(
    sizes: ModelSizes, layout: ParallelLayout, moment_bytes: int = 2 * FP32, offload: bool = False
) -> StageCost:
    """The cost of `layout.zero_stage`.

    `moment_bytes`: of a parameter, both moments. `offload`: master weights and moments in host
    memory, and at ZeRO 3 the gradients.
    """
    stage, world, trained = layout.zero_stage, layout.world_size, sizes.trainable
    share = -(-trained // world)
    if stage == 0:
        states = StageCost(
            weights=sizes.parameters * layout.element_bytes,
            gradients=trained * layout.element_bytes,
            optimizer=trained * moment_bytes,
            host=0,
            sent=0,
        )
    else:
        # at ZeRO 1 each rank sums whole gradients; its own part of them is then copied
        full_gradients = trained * FP32 if stage == 1 else 0
        shards = world if stage == 3 else 1
        optimizer = share * (FP32 + moment_bytes)
        states = StageCost(
            weights=-(-sizes.parameters // shards) * layout.element_bytes,
            gradients=full_gradients + share * FP32,
            optimizer=optimizer,
            host=0,
            sent=0,
        )
    if offload and stage:
        on_host = states.optimizer + share * FP32
        kept = 0 if stage == 3 else states.gradients
        states = replace(states, gradients=kept, optimizer=0, host=on_host)
    sent = sum(c.bytes_sent for c in collectives(sizes, layout) if c.kind != "all_to_all")
    return replace(states, sent=round(sent))


def suggested_stage(
    chosen: int, costs: dict[int, StageCost], activations: int, device_bytes: int
) -> int | None:
    """Another stage that fits where `chosen` does not, or that sends far less; None: keep it.

    Of those that fit, the one that sends least. `activations`: bytes beside the states.
    """
    fits = {
        stage: cost for stage, cost in costs.items() if cost.device + activations <= device_bytes
    }
    if not fits:
        return None
    best = min(fits, key=lambda stage: (fits[stage].sent, -stage))
    if chosen not in fits:
        return best
    saves = fits[best].sent <= WORTH_A_CHANGE * fits[chosen].sent
    return best if best != chosen and saves else None


def layer_inputs(sizes: ModelSizes, layout: ParallelLayout) -> int:
    """Bytes of what activation checkpointing keeps on the device: (S, E) of each layer."""
    return sizes.layers * layout.rank_tokens * sizes.hidden * layout.element_bytes


def advice(
    sizes: ModelSizes, layout: ParallelLayout, config: Config, device_bytes: int
) -> str | None:
    """One line for a training whose stage does not fit the device, or wastes the network.

    None for 4-bit weights, whose bytes are not counted here.
    """
    train = config.train
    if train.lora.quantize == "nf4":
        return None
    moment_bytes = 2 if train.optimizer.name == "adamw_8bit" else 2 * FP32
    offload = train.memory.offload_optimizer
    first = 1 if train.precision == "bf16" else 0
    stages = range(first, 3 if train.memory.compile else 4)
    costs = {
        stage: stage_cost(sizes, replace(layout, zero_stage=stage), moment_bytes, offload)
        for stage in stages
    }
    keeps = train.memory.activation_checkpointing and not train.memory.offload_activations
    activations = layer_inputs(sizes, layout) if keeps else 0
    return _line(layout, costs, activations, device_bytes)


def _line(
    layout: ParallelLayout, costs: dict[int, StageCost], activations: int, device_bytes: int
) -> str | None:
    chosen = layout.zero_stage
    cost = costs[chosen]
    stage = suggested_stage(chosen, costs, activations, device_bytes)
    needed = cost.device + activations
    is_too_large = needed > device_bytes
    if stage is None and not is_too_large:
        return None
    line = (
        f"train.zero_stage is {chosen}; on each of {layout.world_size} ranks it holds "
        f"{_states(cost)}, and with layer inputs of {activations / GB:.1f} at least "
        f"{needed / GB:.1f} of the device's {device_bytes / GB:.1f} GB; it sends "
        f"{cost.sent / GB:.1f} GB a step"
    )
    if stage is None:
        return f"{line}; no stage fits; {_ways_out(costs, activations, device_bytes)}"
    other = costs[stage]
    return (
        f"{line}; ZeRO {stage} holds {_states(other)} and sends {other.sent / GB:.1f} GB; "
        f"consider train.zero_stage={stage}"
    )


def _states(cost: StageCost) -> str:
    return (
        f"{cost.weights / GB:.1f} GB of weights, {cost.gradients / GB:.1f} of gradients, "
        f"{cost.optimizer / GB:.1f} of optimizer states"
    )


def _ways_out(costs: dict[int, StageCost], activations: int, device_bytes: int) -> str:
    least = min(costs.values(), key=lambda cost: cost.device)
    if least.device > device_bytes:
        return "start more ranks at train.zero_stage=3, or train.memory.offload_optimizer=true"
    return "set train.memory.offload_activations=true, or a larger train.sp_size"


def layout_of(config: Config, mesh: Mesh, accumulation_steps: int) -> ParallelLayout:
    """How `config` is trained on `mesh`."""
    train = config.train
    return ParallelLayout(
        dp_size=mesh.dp_size,
        sp_size=mesh.sp_size,
        zero_stage=train.zero_stage,
        accumulation_steps=accumulation_steps,
        tokens=config.micro_batch_tokens,
        element_bytes=2 if train.precision == "bf16" else 4,
        checkpointing=train.memory.activation_checkpointing,
    )


def advice_of_run(
    model: PreTrainedModel, config: Config, mesh: Mesh, accumulation_steps: int
) -> str | None:
    """`advice` for this rank's device; None on a CPU, whose memory the ranks share."""
    if not torch.cuda.is_available():
        return None
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    layout = layout_of(config, mesh, accumulation_steps)
    return advice(model_sizes(model), layout, config, total)
