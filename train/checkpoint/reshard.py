"""Read a checkpoint into another mesh: by parameter name, each rank only its own fragments.

The files are mapped into memory, so no rank holds more than its own states, whatever mesh wrote
them. All values are copied bit for bit.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
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
from ropewalk.train.zero.mesh import first_message

WEIGHT = "fp32"


class SavedFragment(NamedTuple):
    """A fragment in the checkpoint, and the flat tensors that hold it: `WEIGHT` and the optimizer's
    states."""

    fragment: Fragment
    tensors: dict[str, Any]


def load(engine: Engine, folder: Path, metadata: dict[str, Any]) -> None:
    """Collective. Load weights and optimizer states of the checkpoint `folder`.

    Raises: ConfigError, on all ranks, when states cannot be divided or a parameter was not saved.
    """
    if engine.zero_nvme_offload_optimizer():
        raise ConfigError(
            "train.memory.offload_optimizer keeps its states on NVMe; such a checkpoint is resumed "
            "by the ranks, sp_size and ZeRO stage that wrote it; set them back"
        )
    message, lists = "", read_file_lists(folder, metadata["world_size"])
    with rewriting_optimizer(engine):
        try:
            _load_local(engine, folder, metadata["zero_stage"], lists)
        except ConfigError as error:
            message = str(error)
        # no rank is left waiting for one that failed alone
        if message := first_message(message):
            raise ConfigError(message)


def read_file_lists(folder: Path, saved_world_size: int) -> dict[int, dict[str, Any]]:
    """Collective. What each rank that wrote says of its files, by rank; each list is read once."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    own = {n: read_json(_list_path(folder, n)) for n in range(rank, saved_world_size, world_size)}
    lists: list[Any] = [None] * world_size
    dist.all_gather_object(lists, own)
    return {n: file_list for part in lists for n, file_list in part.items()}


def _list_path(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.json"


def needed_ranks(targets: Iterable[Fragment], saved: Mapping[int, Iterable[Fragment]]) -> list[int]:
    """The ranks that wrote an element of `targets`; `saved`: the fragments of each."""
    ranges: dict[str, list[Fragment]] = defaultdict(list)
    for target in targets:
        ranges[target.name].append(target)
    return [
        rank
        for rank, fragments in saved.items()
        if any(_overlaps(f, target) for f in fragments for target in ranges[f.name])
    ]


def _overlaps(a: Fragment, b: Fragment) -> bool:
    return max(a.start, b.start) < min(a.start + a.numel, b.start + b.numel)


def _load_local(
    engine: Engine, folder: Path, zero_stage: int, lists: dict[int, dict[str, Any]]
) -> None:
    """This rank's fragments, from the files of those ranks that wrote some of them."""
    fragments = {rank: _fragments(file_list) for rank, file_list in lists.items()}
    targets = [fragment for flat in flat_tensors(engine) for fragment in flat.fragments]
    saved: dict[str, list[SavedFragment]] = defaultdict(list)
    for rank in needed_ranks(targets, {n: sum(flats, []) for n, flats in fragments.items()}):
        names = lists[rank]["files"]
        for source in _saved_by(folder, names, fragments[rank], zero_stage):
            saved[source.fragment.name].append(source)
    for flat, key in zip(flat_tensors(engine), optimizer_keys(engine), strict=True):
        state = optimizer_states(engine)[key]
        _fill(flat, state, saved)
        state |= {name: v.view_as(key) for name, v in state.items() if _has_elements(v)}
        if "step" in state:
            state["step"] = step_count(float(state["step"]), base_optimizer(engine), key)


def step_count(
    step: float, optimizer: torch.optim.Optimizer, weights: torch.Tensor
) -> torch.Tensor | int:
    """`step` in the optimizer's own form: torch's AdamW has a tensor on the weights' device, the
    CPU and 8-bit ones an int."""
    if isinstance(optimizer, torch.optim.AdamW):
        return torch.tensor(step, dtype=torch.float32, device=weights.device)
    return int(step)


def _fragments(file_list: dict[str, Any]) -> list[list[Fragment]]:
    """Of each flat tensor that a rank saved."""
    return [[Fragment(*fragment) for fragment in flat] for flat in file_list["flats"]]


def _saved_by(
    folder: Path, names: Iterable[str], flats: list[list[Fragment]], zero_stage: int
) -> list[SavedFragment]:
    """The fragments that a rank saved, in the one of its files `names` that has them."""
    kind = "model_states.pt" if zero_stage == 0 else "optim_states.pt"
    (name,) = [name for name in names if name.endswith(kind)]
    saved = saved_flat_tensors(folder / name, zero_stage, [flat[0].name for flat in flats])
    return [
        SavedFragment(fragment, {WEIGHT: weight, **_elementwise(state, weight)})
        for flat, (weight, state) in zip(flats, saved, strict=True)
        for fragment in flat
    ]


def _elementwise(state: dict[str, Any], weight: torch.Tensor) -> dict[str, Any]:
    """The states flattened, each with an element for each weight, or one for all.

    Raises: ConfigError for other states (8-bit optimizers keep a value for each block of weights).
    """
    for key, value in state.items():
        elements = value.numel() if isinstance(value, torch.Tensor) else 1
        if elements != 1 and elements < weight.numel():
            raise ConfigError(
                f"train.optimizer.name keeps {key} in blocks, which another mesh cannot cut; such "
                "a checkpoint is resumed by the ranks, sp_size and ZeRO stage that wrote it; set "
                "them back"
            )
    return {name: v.reshape(-1) if _has_elements(v) else v for name, v in state.items()}


def _has_elements(value: object) -> bool:
    return isinstance(value, torch.Tensor) and value.dim() > 0


def _fill(flat: FlatTensor, state: dict[str, Any], saved: dict[str, list[SavedFragment]]) -> None:
    """Fill a live flat tensor and its states. Raises: ConfigError when elements were not saved."""
    state.clear()
    for target in flat.fragments:
        copied = sum(_copy_overlap(flat.tensor, state, target, s) for s in saved[target.name])
        if missing := target.numel - copied:
            raise ConfigError(
                f"the checkpoint lacks {missing} elements of {target.name}; "
                "it must hold every trained parameter once; take another"
            )


def _copy_overlap(
    weights: torch.Tensor, state: dict[str, Any], target: Fragment, source: SavedFragment
) -> int:
    """Copy the elements that both fragments hold, with their states; returns their number.

    States that are one number for the tensor are copied as they are.
    """
    low = max(target.start, source.fragment.start)
    high = min(target.start + target.numel, source.fragment.start + source.fragment.numel)
    if low >= high:
        return 0
    target_slice = _slice(target, low, high)
    source_slice = _slice(source.fragment, low, high)
    for name, value in source.tensors.items():
        if name == WEIGHT:
            weights[target_slice] = value[source_slice]
        elif _has_elements(value):
            live = state.setdefault(name, torch.zeros_like(weights, dtype=value.dtype))
            live[target_slice] = value[source_slice]
        else:
            state.setdefault(name, value)
    return high - low


def _slice(fragment: Fragment, low: int, high: int) -> slice:
    """Where elements `[low, high)` of the parameter lie in the flat tensor."""
    offset = fragment.offset - fragment.start
    return slice(offset + low, offset + high)
