"""One rank reads a model, the others receive it: one copy of its files in host memory, on one node.

Below ZeRO 3 every rank has the whole weights on its device. Without a process group there is one
rank, which reads.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from ropewalk.conf.errors import RopewalkError

T = TypeVar("T")
READER = 0


class Entry(NamedTuple):
    """A tensor that is sent."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


def has_others() -> bool:
    return dist.is_initialized() and dist.get_world_size() > 1


def on_reader(work: Callable[[], T]) -> T:
    """Collective. What `work` returns on the reader, on every rank.

    Raises: what `work` raises there, on every rank.
    """
    if not has_others():
        return work()
    result: Any = None
    error: Exception | None = None
    if dist.get_rank() == READER:
        try:
            result = work()
        except Exception as raised:
            error = raised
    known = error if isinstance(error, RopewalkError) else error and RopewalkError(str(error))
    outcome = [result, known]
    dist.broadcast_object_list(outcome, READER)
    if error or outcome[1]:
        raise error or outcome[1]
    return outcome[0]  # type: ignore[no-any-return]


def load(
    read: Callable[[], PreTrainedModel],
    config: PreTrainedConfig,
    device: torch.device,
    trust_remote_code: bool = False,
) -> PreTrainedModel:
    """Collective. The model that `read` returns on the reader, on each rank's `device`.

    `config`: that of the model, on every rank.

    Raises: what `read` raises, on every rank; RopewalkError when a rank builds another model.
    """
    if not has_others():
        return read().to(device)  # type: ignore[arg-type]
    model: PreTrainedModel | None = None

    def entries() -> list[Entry]:
        nonlocal model
        model = read()
        return [Entry(name, tuple(t.shape), t.dtype) for name, t in tensors_of(model)]

    expected = on_reader(entries)
    if model is None:
        model = _without_weights(config, trust_remote_code)
        _allocate(model, expected, device)
    model.to(device)  # type: ignore[arg-type]
    for _, tensor in tensors_of(model):
        dist.broadcast(tensor.data, READER)
    return model


def tensors_of(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters, tied ones once, and buffers, whose dtype depends on how a model is loaded."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def _without_weights(config: PreTrainedConfig, trust_remote_code: bool) -> PreTrainedModel:
    """The model with its parameters on the meta device."""
    with no_init_weights(), _parameters_on_meta():
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32, trust_remote_code=trust_remote_code
        )
    model.tie_weights()
    return model.eval()  # type: ignore[no-any-return]


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """While open, a parameter that a module registers keeps its shape only."""
    register = nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, value: nn.Parameter | None) -> None:
        if value is not None:
            value = nn.Parameter(value.detach().to("meta"), requires_grad=value.requires_grad)
        register(module, name, value)

    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]


def _allocate(model: PreTrainedModel, expected: list[Entry], device: torch.device) -> None:
    """Give the tensors their storage, without values. Raises: RopewalkError when others are."""
    tensors = dict(tensors_of(model))
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != (sent := {entry.name: entry.shape for entry in expected}):
        name = min(name for name in {*shapes, *sent} if shapes.get(name) != sent.get(name))
        raise RopewalkError(
            f"{name} is {shapes.get(name)} on rank {dist.get_rank()} and {sent.get(name)} on rank "
            f"{READER}; all ranks must build one model; report this as a bug"
        )
    parameters = dict(model.named_parameters())
    for name, shape, dtype in expected:
        empty = torch.empty(shape, dtype=dtype, device=device)
        if name in parameters:
            # swapped, not replaced: a tied weight stays one object
            parameter = nn.Parameter(empty, parameters[name].requires_grad)
            torch.utils.swap_tensors(parameters[name], parameter)
        else:
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, empty)
