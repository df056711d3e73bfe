"""`fake_world.py WORLD SP_SIZE ZERO_STAGE`: one rank of a world without the others, on torch's fake
backend; prints what it counted as JSON.

Groups, collectives, their bytes and host seconds are real. Values are not: nothing is exchanged.
"""

import json
import os
import sys
import time
from collections import Counter
from typing import Any

RANK, MICRO_STEPS, SEQ_LEN = 3, 2, 32


def nbytes(value: object) -> int:
    """Of all tensors in a collective's arguments."""
    if isinstance(value, list | tuple):
        return sum(map(nbytes, value))
    return getattr(value, "nbytes", 0)


def counted() -> Any:
    """A dispatch mode with the numbers of calls and bytes of each collective inside."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counted(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.calls: Counter[str] = Counter()
            self.bytes: Counter[str] = Counter()

        def __torch_dispatch__(
            self, op: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            # DeepSpeed's exchange of heads is an operator of its own, which hides torch's
            if op.namespace in ("c10d", "deepspeed"):
                name = op._schema.name.partition("::")[2].strip("_")
                self.calls[name] += 1
                self.bytes[name] += nbytes(args)
            return op(*args, **(kwargs or {}))

    return Counted()


def count_groups() -> list[object]:
    """Every later call for a group, on this rank, whether the rank is in the group or not."""
    import torch.distributed as dist

    calls, new_group = [], dist.new_group

    def counting(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return new_group(*args, **kwargs)

    dist.new_group = counting
    return calls


def join(world_size: int) -> None:
    import deepspeed
    import torch.distributed as dist
    from deepspeed.runtime.zero import (
        partition_parameters,
        partitioned_param_coordinator,
        stage3,
    )
    from torch.testing._internal.distributed.fake_pg import FakeStore

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # else it is compiled
    # they compare with what rank 0 sent, and nobody sends
    for module in (partition_parameters, stage3, partitioned_param_coordinator):
        for name in ("assert_ints_same_as_other_ranks", "assert_lst_len_same_as_other_ranks"):
            if hasattr(module, name):
                setattr(module, name, lambda *_: None)
    dist.init_process_group("fake", store=FakeStore(), rank=RANK, world_size=world_size)
    deepspeed.init_distributed(dist_backend="fake", verbose=False)


def main(world_size: int, sp_size: int, zero_stage: int) -> dict[str, Any]:
    import torch
    from models import tiny_model

    from ropewalk.launch.config.compose import compose
    from ropewalk.train import attention
    from ropewalk.train.attention import ulysses
    from ropewalk.train.zero.engine import build_engine
    from ropewalk.train.zero.mesh import Mesh, process_groups
    from ropewalk.train.zero.optimizer_step import OptimizerStep, accumulate

    started = time.perf_counter()
    join(world_size)
    groups, mesh = count_groups(), Mesh.of(sp_size)
    process_groups(mesh)
    meeting_s = time.perf_counter() - started
    layout = [f"train.zero_stage={zero_stage}", f"train.sp_size={sp_size}"]
    config, model = compose(["recipe=demo", "train.precision=bf16", *layout]), tiny_model()
    parameters = sum(p.numel() for p in model.parameters())
    model.set_attn_implementation(
        attention.register("sdpa", ulysses.kernel_wrapper(model.config, mesh))
    )
    with counted() as building:
        engine = build_engine(model, config, MICRO_STEPS, mesh)
    width = SEQ_LEN // sp_size
    batch = {
        "input_ids": torch.ones(1, width, dtype=torch.long),
        "labels": torch.ones(1, width, dtype=torch.long),
        "position_ids": torch.arange(width).unsqueeze(0),
        **attention.document_borders(torch.tensor([0, SEQ_LEN], dtype=torch.int32)),
    }
    step_started = time.perf_counter()
    with counted() as step:
        for _ in accumulate(engine, MICRO_STEPS):
            engine.backward(engine(**batch, total_labels=SEQ_LEN))
        OptimizerStep(engine).apply()
    return {
        "parameters": parameters,
        "groups": len(groups),
        "meeting_s": meeting_s,
        "step_s": time.perf_counter() - step_started,
        "building": {"calls": building.calls, "bytes": building.bytes},
        "step": {"calls": step.calls, "bytes": step.bytes},
    }


if __name__ == "__main__":
    world = sys.argv[1]
    os.environ |= {"RANK": str(RANK), "LOCAL_RANK": str(RANK), "WORLD_SIZE": world}
    os.environ |= {"DS_ACCELERATOR": "cpu", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    print(json.dumps(main(*map(int, sys.argv[1:]))))
