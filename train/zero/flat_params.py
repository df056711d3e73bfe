"""Where each parameter lies in the flat fp32 tensors that the optimizer of a ZeRO stage steps.

The form is the same for every stage, so that a checkpoint can be read by name into another one:
flat tensors, and the fragments of parameters in them.
"""

from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist

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


class _Zero12(Protocol):
    """What is read of DeepSpeed's optimizer of ZeRO 1 and 2. Keys are its parameters."""

    single_partition_of_fp32_groups: list[torch.Tensor]
    bit16_groups: list[list[Any]]
    param_names: dict[Any, str]


class _Zero3(Protocol):
    """What is used of DeepSpeed's optimizer of ZeRO 3."""

    fp32_partitioned_groups_flat: list[torch.Tensor]
    fp16_partitioned_groups_flat: list[torch.Tensor]
    fp16_partitioned_groups: list[list[torch.Tensor]]
    fp16_groups: list[list[Any]]
    persistent_parameters: list[Any]
    param_names: dict[Any, str]
    grad_position: dict[int, tuple[int, int, int]]
    dp_process_group: dist.ProcessGroup

    def get_param_id(self, param: torch.Tensor) -> int: ...
    def unflatten(self, flat: torch.Tensor, like: list[torch.Tensor]) -> list[torch.Tensor]: ...


def flat_tensors(engine: Engine) -> list[FlatTensor]:
    """This rank's flat tensors, in the order in which the optimizer counts its states.

    At stage 0 every rank has all of them, and rank 0's are saved.
    """
    stage = engine.zero_optimization_stage()
    if stage == 0:
        return _replicated(engine)
    return _stage3(engine.optimizer) if stage == 3 else _stage12(engine.optimizer)


def _replicated(engine: Engine) -> list[FlatTensor]:
    names: dict[torch.Tensor, str] = {p: name for name, p in engine.module.named_parameters()}
    return [
        FlatTensor(p.data.view(-1), [Fragment(names[p], 0, p.numel(), 0)])
        for p in _unpartitioned(engine)
    ]


def _stage12(zero: _Zero12) -> list[FlatTensor]:
    flats = []
    for flat, group in zip(zero.single_partition_of_fp32_groups, zero.bit16_groups, strict=True):
        fragments = []
        for parameter in group:
            if (mapping := parameter._hp_mapping) is not None:
                source, target = mapping.lp_fragment_address, mapping.hp_fragment_address
                name = zero.param_names[parameter]
                fragments.append(Fragment(name, source.start, source.numel, target.start))
        flats.append(FlatTensor(flat, fragments))
    return flats


def _stage3(zero: _Zero3) -> list[FlatTensor]:
    """Each rank has an equal share of a parameter; the last ranks' may be partly padding."""
    flats, rank = [], dist.get_rank(group=zero.dp_process_group)
    for flat, group in zip(zero.fp32_partitioned_groups_flat, zero.fp16_groups, strict=True):
        fragments = []
        for parameter in group:
            _, offset, width = zero.grad_position[zero.get_param_id(parameter)]
            start = rank * width
            numel = max(0, min(width, parameter.ds_numel - start))
            fragments.append(Fragment(zero.param_names[parameter], start, numel, offset))
        flats.append(FlatTensor(flat, fragments))
    return flats


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


def _refresh_partitions(zero: _Zero3) -> None:
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
