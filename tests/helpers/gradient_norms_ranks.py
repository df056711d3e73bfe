"""Group norms of a step whose gradients were offloaded, as a rank of test_gradient_norms.py."""

from collections import Counter
from typing import Any

import memory_runs
import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3
from parity_ranks import partition_small_params

from ropewalk.train.loop.micro_batches import to_device
from ropewalk.train.metrics.sums import local_squared_norms, norms_by_group
from ropewalk.train.zero.engine import Engine, build_engine


def norms_of(cases: list[dict[str, Any]], accumulated: int) -> list[dict[str, Any]]:
    """For each of the settings: norms by group while no gradient has reached host memory yet, and
    how many parameters were read one by one."""
    return [_norms(case, accumulated) for case in cases]


def _norms(case: dict[str, Any], accumulated: int) -> dict[str, Any]:
    config = memory_runs.make_config(precision="bf16", **case)
    with partition_small_params():
        engine = build_engine(memory_runs.make_model(), config, accumulated)
    labels = memory_runs.LENGTH * accumulated
    for number in range(accumulated):
        engine.set_gradient_accumulation_boundary(number + 1 == accumulated)
        batch = to_device(memory_runs.make_row(number))
        engine.backward(engine(**batch, total_labels=labels) * accumulated)
        if number + 1 < accumulated:
            engine.step()
    for gradient in host_gradients(engine):
        gradient.zero_()
    reads: Counter[str] = Counter()
    name = "_get_fp32_grad_state_partition"
    original = getattr(DeepSpeedZeroOptimizer_Stage3, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        reads["parameters"] += 1
        return original(*args, **kwargs)

    setattr(DeepSpeedZeroOptimizer_Stage3, name, counted)
    squares = local_squared_norms(engine, 0, torch.device("cpu"))
    setattr(DeepSpeedZeroOptimizer_Stage3, name, original)
    return {"norms": norms_by_group(squares), "reads": reads["parameters"]}


def host_gradients(engine: Engine) -> list[torch.Tensor]:
    """Where DeepSpeed copies the gradients of an offloaded optimizer to."""
    if not engine.zero_offload_optimizer():
        return []
    zero = engine.optimizer
    stage3 = engine.zero_optimization_stage() == 3
    flat = zero.fp32_partitioned_groups_flat if stage3 else zero.single_partition_of_fp32_groups
    return [tensor.grad for tensor in flat]


def device_waits(stage: int, steps: int) -> int:
    """How often DeepSpeed waited for the whole device in `steps` steps."""
    accelerator, waits = get_accelerator(), 0

    def synchronize(device_index: int | None = None) -> None:
        nonlocal waits
        waits += 1

    config = memory_runs.make_config(zero_stage=stage)
    engine = build_engine(memory_runs.make_model(), config, 1)
    accelerator.synchronize = synchronize
    for step in range(steps):
        memory_runs.run_step(engine, step)
    return waits
