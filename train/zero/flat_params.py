"""Where each parameter lies in the flat fp32 tensors that the optimizer of a ZeRO stage steps.

The same for every stage, so that a checkpoint can be read by name into another: a flat tensor, and the pieces of parameters in it.
"""

from typing import Any, NamedTuple

import torch


class Piece(NamedTuple):
    """Elements `[start, start + numel)` of a parameter laid flat, at `offset` of the flat tensor."""

    name: str
    start: int
    numel: int
    offset: int


class Flat(NamedTuple):
    """One tensor that the optimizer steps. Pieces leave out what pads it."""

    tensor: torch.Tensor
    pieces: list[Piece]


def flats(engine: Any) -> list[Flat]:
    """This rank's, in the order in which the optimizer counts its states. At stage 0 every rank has all; the first one's are saved."""
    stage = engine.zero_optimization_stage()
    return (
        _replicated(engine) if stage == 0 else _stage3(engine) if stage == 3 else _stage12(engine)
    )


def _replicated(engine: Any) -> list[Flat]:
    named = engine.param_names
    return [
        Flat(p.data.view(-1), [Piece(named[p], 0, p.numel(), 0)])
        for group in engine.optimizer.param_groups
        for p in group["params"]
    ]


def _stage12(engine: Any) -> list[Flat]:
    zero = engine.optimizer
    return [
        Flat(
            flat,
            [
                _linked(zero.param_names[p], p._hp_mapping)
                for p in group
                if p._hp_mapping is not None
            ],
        )
        for flat, group in zip(zero.single_partition_of_fp32_groups, zero.bit16_groups, strict=True)
    ]


def _linked(name: str, mapping: Any) -> Piece:
    low, high = mapping.lp_fragment_address, mapping.hp_fragment_address
    return Piece(name, low.start, low.numel, high.start)


def _stage3(engine: Any) -> list[Flat]:
    zero = engine.optimizer
    return [
        Flat(flat, [_share(zero, p) for p in group])
        for flat, group in zip(zero.fp32_partitioned_groups_flat, zero.fp16_groups, strict=True)
    ]


def _share(zero: Any, parameter: Any) -> Piece:
    """A rank's equal share of a parameter; the last ranks' may be padding in part or in whole."""
    _, offset, width = zero.grad_position[zero.get_param_id(parameter)]
    start = torch.distributed.get_rank(group=zero.dp_process_group) * width
    return Piece(
        zero.param_names[parameter], start, max(0, min(width, parameter.ds_numel - start)), offset
    )


def inner(engine: Any) -> Any:
    """The optimizer itself, inside ZeRO's."""
    return engine.optimizer if engine.zero_optimization_stage() == 0 else engine.optimizer.optimizer


def states(engine: Any) -> Any:
    """The optimizer's own states, by the tensor it steps."""
    return inner(engine).state


def stepped(engine: Any) -> list[torch.Tensor]:
    """The keys of `states`, in the order of `flats`: at stage 0 the parameters themselves."""
    if engine.zero_optimization_stage() == 0:
        return [p for group in engine.optimizer.param_groups for p in group["params"]]
    return [flat.tensor for flat in flats(engine)]


def refresh_weights(engine: Any) -> None:
    """The weights that the model computes with, made from the fp32 ones: as after a step. Every rank calls it."""
    zero, stage = engine.optimizer, engine.zero_optimization_stage()
    if stage in (1, 2):
        zero.update_lp_params()
        zero._hp_optimizer_states_linked = False
    if stage == 3:
        for low, high, pieces in zip(
            zero.fp16_partitioned_groups_flat,
            zero.fp32_partitioned_groups_flat,
            zero.fp16_partitioned_groups,
            strict=True,
        ):
            low.data.copy_(high.data)
            for piece, now in zip(pieces, zero.unflatten(low, pieces), strict=True):
                piece.data = now.data
        if zero.persistent_parameters:
            zero.persistent_parameters[0].partition(zero.persistent_parameters)
