"""What a training needs at the least, by arithmetic: a configuration that is beyond it already is
not traced while changes are searched.

    W ranks   S tokens of a rank's row   E hidden size
"""

from ropewalk.conf.hardware_file import Hardware
from ropewalk.train.cost.zero_stage import StageCost, layer_inputs, stage_cost
from ropewalk.train.memory.attention_budget import MOMENT_BYTES
from ropewalk.train.memory.offloaded_activations import LAYERS_IN_FLIGHT
from ropewalk.train.trace.layers import Subject


def is_hopeless(subject: Subject, hardware: Hardware, gpus: int) -> bool:
    """Whether the least that it needs is more than there is."""
    host = hardware.host_ram_gib.value * 2**30
    return (
        least_device_bytes(subject) > hardware.usable_bytes
        or least_host_bytes(subject, hardware, gpus) > host
    )


def least_device_bytes(subject: Subject) -> int:
    """Of one GPU: the states, or those without gradients beside the inputs of all layers, (S, E)
    each, which are there when the backward pass begins."""
    memory, states = subject.train.memory, states_of(subject)
    weights = 0 if memory.offload_params else states.weights
    inputs = 0 if memory.offload_activations else layer_inputs(subject.sizes, subject.layout)
    return weights + states.optimizer + max(states.gradients, inputs)


def least_host_bytes(subject: Subject, hardware: Hardware, gpus: int) -> int:
    """Of a node: pinned memory of its ranks."""
    memory, layers = subject.train.memory, subject.sizes.layers
    inputs = layer_inputs(subject.sizes, subject.layout) * (layers - LAYERS_IN_FLIGHT) // layers
    activations = max(0, inputs) if memory.offload_activations else 0
    ranks = min(gpus, hardware.gpus_per_node)
    return ranks * (activations + sum(offloaded_states(subject).values()))


def offloaded_states(subject: Subject) -> dict[str, int]:
    """Bytes of a rank in pinned memory, by what they hold."""
    memory, states = subject.train.memory, states_of(subject)
    if memory.offload_path is not None:
        return {}
    return {"optimizer": states.host, "weights": states.weights * memory.offload_params}


def states_of(subject: Subject) -> StageCost:
    train = subject.train
    moments = MOMENT_BYTES[train.optimizer.name]
    return stage_cost(subject.sizes, subject.layout, moments, train.memory.offload_optimizer)
