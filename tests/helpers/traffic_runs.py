"""A step under a mode that sees every collective of torch, for the tests of traffic."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import metrics_runs
import torch
from feeds import accept_step
from torch.utils._python_dispatch import TorchDispatchMode

from ropewalk.train.loop.step import train_step
from ropewalk.train.metrics import StepMetrics
from ropewalk.train.zero import engine as zero_engine
from ropewalk.train.zero.mesh import Mesh

# the kind of each operator, and which of its tensors is the full one
KINDS = {
    "c10d::allreduce_": ("all_reduce", 0),
    "c10d::_allgather_base_": ("all_gather", 0),
    "c10d::_reduce_scatter_base_": ("reduce_scatter", 1),
    "deepspeed::dim_zero_all_to_all": ("all_to_all", 0),
    "_c10d_functional::all_to_all_single": ("all_to_all", 0),
}
WAIT = "_c10d_functional::wait_tensor"


class Collectives(TorchDispatchMode):
    """Bytes by kind of collective.

    Single numbers are left out, and float64, which only metrics use.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        names = ("c10d", "deepspeed", "_c10d_functional")
        if func.namespace in names and func._schema.name != WAIT:
            kind, index = KINDS[func._schema.name]  # another collective fails the test
            tensor = tensors_in(args)[index]
            if tensor.numel() > 1 and tensor.dtype != torch.float64:
                self.bytes[kind] += tensor.nbytes
        return func(*args, **(kwargs or {}))


def tensors_in(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [tensor for inner in value for tensor in tensors_in(inner)]
    return []


def release_at_once(deepspeed_config: Callable[..., dict[str, Any]]) -> Any:
    """DeepSpeed's config, changed to keep no parameter between two passes, as it would a tiny
    model's."""

    def changed(*args: Any) -> dict[str, Any]:
        config = deepspeed_config(*args)
        keys = (
            "stage3_param_persistence_threshold",
            "stage3_max_live_parameters",
            "stage3_max_reuse_distance",
        )
        config["zero_optimization"] |= dict.fromkeys(keys, 0)
        return config

    return changed


def bytes_of_third_step(
    stage: int,
    sp_size: int,
    accumulated: int,
    *overrides: str,
    sizes: dict[str, Any] = metrics_runs.LARGE,
) -> dict[str, int]:
    """In the first two steps ZeRO 3 records the order in which parameters are used."""
    mesh = Mesh.of(sp_size)
    zero_engine.deepspeed_config = release_at_once(zero_engine.deepspeed_config)
    engine, config, loader = metrics_runs.start(stage, accumulated, mesh, *overrides, sizes=sizes)
    metrics, batches = StepMetrics(engine, config, mesh), loader.micro_batches(range(3))
    for step in (0, 1):
        train_step(engine, config, loader, batches, step, mesh, metrics, accept_step)
    with Collectives() as collectives:
        train_step(engine, config, loader, batches, 2, mesh, metrics, accept_step)
    return dict(collectives.bytes)


def bytes_of_third_step_by_heads(sp_size: int, sizes: dict[str, Any]) -> dict[str, int]:
    """At ZeRO 1, the four rows in one micro-batch, with checkpoints."""
    checkpoints = "train.memory.activation_checkpointing=true"
    return bytes_of_third_step(1, sp_size, 1, checkpoints, sizes=sizes)
