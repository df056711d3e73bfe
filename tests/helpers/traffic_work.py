"""What the ranks of the tests of traffic do: a step under a mode that sees every collective of torch, whoever calls it."""

from collections import Counter
from typing import Any

import seeing_work
import torch
from feeds import accept_step
from torch.utils._python_dispatch import TorchDispatchMode

from ropewalk.train.loop.step import train_step
from ropewalk.train.metrics import StepMetrics
from ropewalk.train.zero import engine
from ropewalk.train.zero.mesh import Mesh

KINDS = {  # and which of the operator's tensors is the whole one
    "c10d::allreduce_": ("all_reduce", 0),
    "c10d::_allgather_base_": ("all_gather", 0),
    "c10d::_reduce_scatter_base_": ("reduce_scatter", 1),
    "deepspeed::dim_zero_all_to_all": ("all_to_all", 0),
}


class Collectives(TorchDispatchMode):
    """Bytes by kind of collective. Single numbers are left out, and float64, in which only metrics are summed."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in ("c10d", "deepspeed"):
            kind, at = KINDS[func._schema.name]  # another collective fails the test
            whole = tensors(args)[at]
            if whole.numel() > 1 and whole.dtype != torch.float64:
                self.bytes[kind] += whole.numel() * whole.element_size()
        return func(*args, **(kwargs or {}))


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    return [t for v in value for t in tensors(v)] if isinstance(value, (list, tuple)) else []


def kept_nothing(settings: Any) -> Any:
    """DeepSpeed's configuration, told to keep no parameter between two passes: a tiny model would never be let go."""

    def changed(*given: Any) -> dict[str, Any]:
        found = settings(*given)
        names = (
            "stage3_param_persistence_threshold",
            "stage3_max_live_parameters",
            "stage3_max_reuse_distance",
        )
        found["zero_optimization"] |= dict.fromkeys(names, 0)
        return found

    return changed


def seen_bytes(stage: int, sp_size: int, accumulated: int, *words: str) -> dict[str, int]:
    """Of the third step: in the first two ZeRO 3 finds out in which order parameters are asked for."""
    mesh = Mesh.of(sp_size)
    engine.deepspeed_config = kept_nothing(engine.deepspeed_config)
    live, config, feed = seeing_work.started(stage, accumulated, mesh, *words)
    seen, rows = StepMetrics(live, config, mesh), feed.micro_batches(range(3))
    for step in (0, 1):
        train_step(live, config, feed, rows, step, mesh, seen, accept_step)
    with Collectives() as found:
        train_step(live, config, feed, rows, 2, mesh, seen, accept_step)
    return dict(found.bytes)
