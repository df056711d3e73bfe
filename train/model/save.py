"""The model saved in Hugging Face form, tensor by tensor: no rank ever holds the whole of it."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from transformers import PreTrainedModel, modeling_utils
from transformers.core_model_loading import revert_weight_conversion

from ropewalk.conf.errors import RopewalkError
from ropewalk.train.adapters.attach import adapter_config
from ropewalk.train.adapters.merge import AdapterMerge, State, merged_name, without_adapter
from ropewalk.train.adapters.quantize import dequantized
from ropewalk.train.weights import safetensors_file
from ropewalk.train.weights.conversion import stored_together
from ropewalk.train.weights.safetensors_file import Place
from ropewalk.train.zero.engine import patched_method
from ropewalk.train.zero.params import full_shape, gathered

MAX_SHARD_SIZE = "50GB"  # transformers' own default


def gather_full_state_dict(named: Iterable[tuple[str, nn.Parameter]]) -> State:
    """Collective. Gathers one tensor at a time into rank 0's host memory; {} on other ranks.

    For a few parameters, such as an adapter's. Raises: RopewalkError when a tensor is empty.
    """
    state_dict: State = {}
    for name, parameter in named:
        with gathered(parameter):
            if dist.get_rank() == 0:
                state_dict[name] = dequantized(parameter).to("cpu", copy=True)
    refuse_empty(state_dict)
    return state_dict


def refuse_empty(tensors: State) -> None:
    """Raises: RopewalkError for a tensor of size 0, which ZeRO 3 leaves where nothing was gathered.

    Such a file would load without an error.
    """
    if empty := [name for name, tensor in tensors.items() if tensor.numel() == 0]:
        raise RopewalkError(
            f"{empty[0]} is empty, and {len(empty) - 1} more; a saved model must have whole "
            "tensors; report this as a bug"
        )


def save_pretrained(
    model: PreTrainedModel, folder: Path, max_shard_size: str = MAX_SHARD_SIZE
) -> None:
    """Collective. Write the model as safetensors in Hugging Face form, with its adapter merged.

    Rank 0 writes. A tensor is gathered, written to its place in its file and freed before the
    next one; an adapted layer's go together, and so do those that make one tensor of the files.

    Raises: RopewalkError when a tensor is empty or has no place.
    """
    parameters, groups = dict(model.named_parameters()), [list[str]()]
    if dist.get_rank() == 0:
        export = _Export(model, folder, max_shard_size)
        groups = export.groups
    groups = _broadcast(groups)
    for names in groups:
        partitioned = [parameters[name] for name in names if name in parameters]
        with gathered(*partitioned):
            if dist.get_rank() == 0:
                export.write(names)
    if dist.get_rank() == 0:
        export.refuse_unwritten()
    dist.barrier()


def _broadcast(groups: list[list[str]]) -> list[list[str]]:
    values: list[list[list[str]]] = [groups]
    dist.broadcast_object_list(values)
    return values[0]


class _Export:
    """Rank 0's part: all files but the weights' values are there once it is created."""

    def __init__(self, model: PreTrainedModel, folder: Path, max_shard_size: str) -> None:
        self.live: State = dict(model.named_parameters())
        stored = model.state_dict().keys()
        self.live |= {name: b for name, b in model.named_buffers() if name in stored}
        self.merge = AdapterMerge(model) if adapter_config(model) is not None else None
        self.saved = without_adapter(model) if self.merge else model
        """The model whose names, config and conversions are those of the files."""
        self.places = _plan(self.saved, self._shapes(model), folder, max_shard_size)
        self.unwritten = {*self.places}
        together = stored_together(self.saved, filter(None, map(merged_name, self.live)))
        groups: dict[str, list[str]] = {}
        for name in self.live:
            layer = self.merge.layer_of(name) if self.merge else None
            key = f"{layer}.weight" if layer else merged_name(name) or name
            groups.setdefault(together.get(key, layer or key), []).append(name)
        self.groups = [*groups.values()]
        """Names of the live model whose tensors are written together."""

    def _shapes(self, model: PreTrainedModel) -> State:
        """What is saved, without storage, by the names of the model without an adapter."""
        shapes: State = {}
        for live_name, tensor in self.live.items():
            if (name := merged_name(live_name)) is not None:
                dtype = getattr(tensor, "quant_state", tensor).dtype
                shapes[name] = torch.empty(full_shape(tensor), dtype=dtype, device="meta")
        refuse_empty(shapes)
        return shapes | {
            name: shapes[tied_to]
            for name, tied_to in model.all_tied_weights_keys.items()
            if name not in shapes
        }

    def write(self, names: list[str]) -> None:
        """Write the tensors that `names` of the live model make; their values must be gathered."""
        state = {name: dequantized(self.live[name]) for name in names}
        if self.merge:
            state = self.merge.merge(state)
        for name, tensor in revert_weight_conversion(self.saved, state).items():
            if name in self.unwritten:
                safetensors_file.write(self.places[name], tensor)
                self.unwritten.remove(name)

    def refuse_unwritten(self) -> None:
        if self.unwritten:
            raise RopewalkError(
                f"{min(self.unwritten)} was not written, and {len(self.unwritten) - 1} more; a "
                "saved model must have all its tensors; report this as a bug"
            )


def _plan(
    model: PreTrainedModel, shapes: State, folder: Path, max_shard_size: str
) -> dict[str, Place]:
    """Let transformers write all files of the model, the weights without their values.

    `shapes`: tensors without storage, by name. Returns the place of each tensor of the files.
    """
    places: dict[str, Place] = {}

    def create(tensors: State, filename: str, metadata: dict[str, str]) -> None:
        assert metadata == {"format": "pt"}
        places.update(safetensors_file.create(Path(filename), tensors))

    # transformers would count no parameter of a partitioned model for the index
    number = sum(full_shape(parameter).numel() for parameter in model.parameters())
    with _saving_by(create), patched_method(model, "num_parameters", number):
        model.save_pretrained(str(folder), state_dict=shapes, max_shard_size=max_shard_size)
    return places


@contextmanager
def _saving_by(create: Callable[[State, str, dict[str, str]], None]) -> Iterator[None]:
    """While open, transformers writes its files of weights by `create`."""
    original = modeling_utils.safe_save_file
    modeling_utils.safe_save_file = create  # type: ignore[assignment]
    try:
        yield
    finally:
        modeling_utils.safe_save_file = original
