"""A checkpoint of one mesh read into another: by parameter name, each rank only the stretches that it holds itself.

The files are mapped, not read: no rank holds more than its own states, whatever wrote them. What is copied is copied bit for bit.
"""

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist

from ropewalk.conf.artifacts.manifest import read_json
from ropewalk.conf.errors import ConfigError
from ropewalk.train.zero.checkpoint import rewriting_optimizer, saved_flat_tensors
from ropewalk.train.zero.engine import Engine
from ropewalk.train.zero.flat_params import (
    FlatTensor,
    Fragment,
    base_optimizer,
    flat_tensors,
    optimizer_keys,
    optimizer_states,
)

WEIGHT = "fp32"


class Saved(NamedTuple):
    """A piece as it was saved, and the flat tensors that hold it: `WEIGHT` and the optimizer's states."""

    piece: Fragment
    tensors: dict[str, Any]


def load(
    engine: Engine, folder: Path, ranks: int, zero_stage: int, read: Callable[[str], Any]
) -> None:
    """Weights and optimizer states of `folder`, which `ranks` ranks wrote at `zero_stage`. `read(path)` maps one of its files.

    Every rank calls it. Raises: ConfigError for states that cannot be cut, and for parameters that were not saved.
    """
    if engine.zero_nvme_offload_optimizer():
        raise ConfigError(
            "train.memory.offload_optimizer keeps its states on NVMe; such a checkpoint is resumed by the ranks, sp_size and ZeRO stage "
            "that wrote it; set them back"
        )
    with rewriting_optimizer(engine):
        _together(lambda: _take(engine, folder, ranks, zero_stage, read))


def _together(work: Callable[[], None]) -> None:
    """Raises: on every rank alike the ConfigError of the first one that has one, for the others would wait for it."""
    mine: str | None = None
    try:
        work()
    except ConfigError as error:
        mine = str(error)
    said: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(said, mine)
    if trouble := next(filter(None, said), None):
        raise ConfigError(trouble)


def _take(
    engine: Engine, folder: Path, ranks: int, zero_stage: int, read: Callable[[str], Any]
) -> None:
    """This rank's stretches from the files of all ranks that wrote."""
    saved: dict[str, list[Saved]] = defaultdict(list)
    for rank in range(ranks):
        for piece in _of_rank(folder, rank, zero_stage, read):
            saved[piece.piece.name].append(piece)
    for flat, key in zip(flat_tensors(engine), optimizer_keys(engine), strict=True):
        state = optimizer_states(engine)[key]
        _fill(flat, state, saved)
        state |= {
            k: v.view_as(key) for k, v in state.items() if isinstance(v, torch.Tensor) and v.dim()
        }
        if "step" in state:
            state["step"] = counted(float(state["step"]), base_optimizer(engine), key)


def counted(step: float, optimizer: Any, weights: torch.Tensor) -> Any:
    """As this optimizer counts: torch's in a tensor where the weights are, those for the host and of 8 bits in a plain number."""
    if isinstance(optimizer, torch.optim.AdamW):
        return torch.tensor(step, dtype=torch.float32, device=weights.device)
    return int(step)


def _of_rank(folder: Path, rank: int, zero_stage: int, read: Callable[[str], Any]) -> list[Saved]:
    said = read_json(folder / f"rank-{rank}.json")
    pieces = [[Fragment(*piece) for piece in flat] for flat in said["flats"]]
    if not pieces:
        return []
    kind = "model_states.pt" if zero_stage == 0 else "optim_states.pt"
    (name,) = [name for name in said["files"] if name.endswith(kind)]
    saved = saved_flat_tensors(
        read(str(folder / name)), zero_stage, [flat[0].name for flat in pieces]
    )
    tensors = [{WEIGHT: weight, **_uncut(state, weight)} for weight, state in saved]
    return [
        Saved(piece, held) for flat, held in zip(pieces, tensors, strict=True) for piece in flat
    ]


def _uncut(state: dict[str, Any], weight: torch.Tensor) -> dict[str, Any]:
    """States with an element for each weight, and plain numbers. Raises: ConfigError for any other (8-bit blocks)."""
    for key, value in state.items():
        if (
            isinstance(value, torch.Tensor)
            and value.numel() not in (1, weight.numel())
            and value.numel() < weight.numel()
        ):
            raise ConfigError(
                f"train.optimizer.name keeps {key} in blocks, which another mesh cannot cut; such a checkpoint is resumed by the ranks, "
                "sp_size and ZeRO stage that wrote it; set them back"
            )
    return {
        k: v.reshape(-1) if isinstance(v, torch.Tensor) and v.dim() else v for k, v in state.items()
    }


def _fill(flat: FlatTensor, state: dict[str, Any], saved: dict[str, list[Saved]]) -> None:
    """A live flat tensor and its states, from all that was saved of its parameters."""
    state.clear()
    for piece in flat.fragments:
        missing = piece.numel
        for source in saved[piece.name]:
            low, high = _overlap(piece, source.piece)
            if low < high:
                _copy(flat.tensor, state, piece, source, low, high)
                missing -= high - low
        if missing:
            raise ConfigError(
                f"the checkpoint lacks {missing} elements of {piece.name}; it must hold every trained parameter once; take another"
            )


def _overlap(a: Fragment, b: Fragment) -> tuple[int, int]:
    return max(a.start, b.start), min(a.start + a.numel, b.start + b.numel)


def _copy(
    weights: torch.Tensor,
    state: dict[str, Any],
    piece: Fragment,
    source: Saved,
    low: int,
    high: int,
) -> None:
    """Elements `[low, high)` of a parameter, and of its states; those that are one number a tensor are taken as they are."""
    at = slice(piece.offset + low - piece.start, piece.offset + high - piece.start)
    of = slice(
        source.piece.offset + low - source.piece.start,
        source.piece.offset + high - source.piece.start,
    )
    weights[at] = source.tensors[WEIGHT][of]
    for key, value in source.tensors.items():
        if key == WEIGHT:
            continue
        if not (isinstance(value, torch.Tensor) and value.dim()):
            state.setdefault(key, value)
            continue
        state.setdefault(key, torch.zeros_like(weights, dtype=value.dtype))[at] = value[of]
