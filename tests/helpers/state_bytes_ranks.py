"""Bytes that DeepSpeed's engines hold, tensor by tensor, as a rank of test_zero_stage.py."""

from collections.abc import Iterable
from typing import Any

import memory_runs
import torch
from parity_ranks import partition_small_params

from ropewalk.train.loop.micro_batches import to_device
from ropewalk.train.zero.engine import Engine, build_engine

SHAPE: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 128, "tie_word_embeddings": False}


def held_bytes(cases: list[dict[str, Any]]) -> list[dict[str, int]]:
    """Of this rank, by what they hold, in the second step of two micro-batches each."""
    return [_held(case) for case in cases]


def _held(case: dict[str, Any]) -> dict[str, int]:
    config = memory_runs.make_config(precision="bf16", **case)
    with partition_small_params():
        engine = build_engine(memory_runs.make_model(**SHAPE), config, 2)
    list(memory_runs.run_steps(engine, config, 1, 2))  # AdamW makes its moments in its first step
    whole = 0
    for number in range(2):
        engine.set_gradient_accumulation_boundary(number == 1)
        engine.backward(engine(**to_device(memory_runs.make_row(number)), total_labels=96))
        if number == 0:
            whole = _bytes(_whole_gradients(engine))
            engine.step()
    master, moments = _optimizer_tensors(engine)
    return {
        "weights": _bytes(_weights(engine)),
        "gradients": whole + _bytes(_gradient_partitions(engine)),
        "optimizer": _bytes([*master, *moments]),
    }


def _bytes(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of the storages behind `tensors`, each once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _weights(engine: Engine) -> list[torch.Tensor]:
    return [getattr(p, "ds_tensor", p).data for p in engine.module.parameters()]


def _whole_gradients(engine: Engine) -> list[torch.Tensor]:
    """Gradients as long as their parameters, between two micro-batches."""
    parameters: list[Any] = list(engine.module.parameters())
    gradients = [g for p in parameters for g in (p.grad, getattr(p, "grad_accum", None))]
    return [gradient for gradient in gradients if gradient is not None]


def _gradient_partitions(engine: Engine) -> list[torch.Tensor]:
    zero = engine.optimizer
    if engine.zero_optimization_stage() == 3:
        return [zero.grad_partitions_flat_buffer]
    return [group.flat_partition for group in zero.averaged_gradients.values()]


def _optimizer_tensors(engine: Engine) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Master weights and moments. AdamW's step counts, one number a tensor, are left out."""
    zero = engine.optimizer
    stage3 = engine.zero_optimization_stage() == 3
    master = zero.fp32_partitioned_groups_flat if stage3 else zero.single_partition_of_fp32_groups
    states = [t for state in zero.optimizer.state.values() for t in state.values()]
    return list(master), [t for t in states if torch.is_tensor(t) and t.numel() > 1]
