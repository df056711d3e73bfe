"""Where each parameter lies in the flat fp32 tensors that the optimizer of a ZeRO stage steps.

The form is the same for every stage, so that a checkpoint can be read by name into another one:
flat tensors, and the fragments of parameters in them.
"""

from typing import Any, NamedTuple

import torch

from ropewalk.train.zero.engine import Engine


class Fragment(NamedTuple):
    """Elements `[start, start + numel)` of a flat parameter, at `offset` of the flat tensor."""

    name: str
    start: int
    numel: int
    offset: int


class FlatTensor(NamedTuple):
    """One tensor that the optimizer steps. No fragment covers its padding."""

    tensor: torch.Tensor
    fragments: list[Fragment]


def flat_tensors(engine: Engine) -> list[FlatTensor]:
    """This rank's flat tensors, in the order in which the optimizer counts its states.

    At stage 0 every rank has all of them, and rank 0's are saved.
    """
    stage = engine.zero_optimization_stage()
    if stage == 0:
        return _replicated(engine)
    return _stage3(engine.optimizer) if stage == 3 else _stage12(engine.optimizer)


def _replicated(engine: Any) -> list[FlatTensor]:
    names = engine.param_names
    return [
        FlatTensor(p.data.view(-1), [Fragment(names[p], 0, p.numel(), 0)])
        for p in _unpartitioned(engine)
    ]


def _stage12(zero: Any) -> list[FlatTensor]:
    groups = zip(zero.single_partition_of_fp32_groups, zero.bit16_groups, strict=True)
    return [
        FlatTensor(
            flat,
            [
                _linked(zero.param_names[p], p._hp_mapping)
                for p in group
                if p._hp_mapping is not None
            ],
        )
        for flat, group in groups
    ]


def _linked(name: str, mapping: Any) -> Fragment:
    low_precision, fp32 = mapping.lp_fragment_address, mapping.hp_fragment_address
    return Fragment(name, low_precision.start, low_precision.numel, fp32.start)


def _stage3(zero: Any) -> list[FlatTensor]:
    groups = zip(zero.fp32_partitioned_groups_flat, zero.fp16_groups, strict=True)
    return [FlatTensor(flat, [_partition(zero, p) for p in group]) for flat, group in groups]


def _partition(zero: Any, parameter: Any) -> Fragment:
    """A rank's equal share of a parameter; the last ranks' shares may be partly padding."""
    _, offset, width = zero.grad_position[zero.get_param_id(parameter)]
    start = torch.distributed.get_rank(group=zero.dp_process_group) * width
    numel = max(0, min(width, parameter.ds_numel - start))
    return Fragment(zero.param_names[parameter], start, numel, offset)


def base_optimizer(engine: Engine) -> torch.optim.Optimizer:
    """AdamW itself, inside ZeRO's optimizer."""
    stage, optimizer = engine.zero_optimization_stage(), engine.optimizer
    return optimizer if stage == 0 else optimizer.optimizer  # type: ignore[no-any-return]


def optimizer_states(engine: Engine) -> dict[torch.Tensor, dict[str, Any]]:
    """AdamW's states, by the tensor it steps (see `optimizer_keys`)."""
    return base_optimizer(engine).state


def optimizer_keys(engine: Engine) -> list[torch.Tensor]:
    """The keys of `optimizer_states`, in the order of `flat_tensors`: at stage 0 the parameters."""
    if engine.zero_optimization_stage() == 0:
        return _unpartitioned(engine)
    return [flat.tensor for flat in flat_tensors(engine)]


def _unpartitioned(engine: Engine) -> list[torch.Tensor]:
    return [p for group in engine.optimizer.param_groups for p in group["params"]]


def refresh_weights(engine: Engine) -> None:
    """Collective. Copy the fp32 weights into the model's own, as after a step."""
    zero, stage = engine.optimizer, engine.zero_optimization_stage()
    if stage in (1, 2):
        zero.update_lp_params()
        zero._hp_optimizer_states_linked = False
    elif stage == 3:
        _refresh_partitions(zero)


def _refresh_partitions(zero: Any) -> None:
    groups = zip(
        zero.fp16_partitioned_groups_flat,
        zero.fp32_partitioned_groups_flat,
        zero.fp16_partitioned_groups,
        strict=True,
    )
    for flat, fp32, partitions in groups:
        flat.data.copy_(fp32.data)
        for partition, view in zip(partitions, zero.unflatten(flat, partitions), strict=True):
            partition.data = view.data
    if zero.persistent_parameters:
        zero.persistent_parameters[0].partition(zero.persistent_parameters)
