"""Checkpoints in host memory: the order of copies and computation, on a stream that is late."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from late_copies import LateCopies
from models import tiny_model

from ropewalk.train import attention
from ropewalk.train.memory import activation_checkpointing, copy_streams
from ropewalk.train.memory.kept_attention import KeptAttention
from ropewalk.train.memory.offloaded_activations import LAYERS_IN_FLIGHT, OffloadedActivations

LAYERS, TOKENS = 6, 80


def model_and_copies(stream: LateCopies | None, is_kept: bool = False) -> tuple[Any, Any]:
    model = tiny_model(num_hidden_layers=LAYERS).train()
    model.set_attn_implementation(attention.register("sdpa"))
    kept = KeptAttention() if is_kept else None
    copies = activation_checkpointing.enable(model, stream is not None, kept)
    if copies is not None:
        copies._stream = stream
    return model, copies


def gradients(model: Any, passes: int = 2) -> torch.Tensor:
    """Of all weights, over `passes` forward and backward passes."""
    for seed in range(passes):
        ids = torch.randint(0, 97, (1, TOKENS), generator=torch.Generator().manual_seed(seed))
        output = model.model(input_ids=ids, use_cache=False).last_hidden_state
        output.square().sum().backward()
    return torch.cat([p.grad.flatten() for p in model.model.parameters()])


@pytest.mark.parametrize("is_kept", [False, True])
def test_copies_as_late_as_their_waits_change_no_bit(is_kept: bool) -> None:
    expected, stream = gradients(model_and_copies(None)[0]), LateCopies()
    model, _ = model_and_copies(stream, is_kept)
    assert torch.equal(gradients(model), expected)
    assert stream.faults == []
    assert len(stream.queue) > 2 * LAYERS


def dropped_without_a_wait(self: OffloadedActivations, layer: Any) -> None:
    layer.sources = [None] * len(layer.sources)


def used_without_a_wait(self: OffloadedActivations, copy: Any) -> torch.Tensor:
    tensor, _ = copy.layer.sources[copy.index] or self._fetch(copy)
    return tensor


@pytest.mark.parametrize(
    ("method", "fault"),
    [("_release", dropped_without_a_wait), ("_unpack", used_without_a_wait)],
)
def test_the_late_stream_catches(
    method: str, fault: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A buffer that is freed while a copy still reads it, and a copy that is used unfinished."""
    monkeypatch.setattr(OffloadedActivations, method, fault)
    stream = LateCopies()
    model, _ = model_and_copies(stream)
    result = gradients(model)
    assert stream.faults or bool(result.isnan().any())
    if method == "_release":
        assert all("read freed memory" in line for line in stream.faults) and stream.faults


def most_sources(is_kept: bool) -> tuple[int, LateCopies, Any]:
    """Most tensors on the device for their copies at a time, in a forward pass without backward."""
    stream, alive = LateCopies(), []
    model, copies = model_and_copies(stream, is_kept)
    record = stream.record
    stream.record = lambda: (alive.append(stream.sources_alive), record())[1]  # type: ignore[method-assign]
    model.model(input_ids=torch.randint(0, 97, (1, TOKENS)), use_cache=False)
    return max(alive), stream, copies


@pytest.mark.parametrize("is_kept", [False, True])
def test_a_few_layers_are_on_the_device_however_late_the_copies_are(
    is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer's input, and with kept attention its output and log-sum-exp."""
    tensors = 3 if is_kept else 1
    most, stream, copies = most_sources(is_kept)
    assert len(stream.queue) == LAYERS * tensors
    # and one that transformers' own frame holds to the end of its forward pass, the embeddings
    bound = LAYERS_IN_FLIGHT * tensors + 1
    assert most <= bound
    # a graph that ends without a backward pass takes nothing along that a copy still reads
    while copies._in_flight:
        copies._release(copies._in_flight.popleft())
    assert stream.sources_alive == 0 and stream.faults == []
    # what is not bounded is noticed
    monkeypatch.setattr(OffloadedActivations, "_release", lambda self, layer: held.append(layer))
    held: list[Any] = []
    assert most_sources(is_kept)[0] > bound


def test_only_the_inputs_of_the_layers_are_offloaded() -> None:
    model, ids = tiny_model(num_hidden_layers=3).train(), torch.randint(0, 97, (1, 20))
    copies = activation_checkpointing.enable(model, offload=True)
    assert copies is not None
    for _ in range(2):
        model.model(input_ids=ids).last_hidden_state.sum().backward()
    # passes x layers x (tokens x hidden size x fp32)
    assert copies.moved_bytes == 2 * 3 * (20 * 32 * 4)
    with torch.no_grad():
        model.model(input_ids=ids)
    assert copies.moved_bytes == 2 * 3 * (20 * 32 * 4)


def test_the_layer_before_is_prefetched_and_used_tensors_are_freed() -> None:
    activations, copies = OffloadedActivations(LateCopies()), []
    tensors = [torch.randn(30, 30) for _ in range(5)]
    for tensor in tensors:
        with activations.layer():
            copies.append(activations._pack(tensor))
    # the last two are still on the device
    for number in (4, 3):
        assert torch.equal(activations._unpack(copies[number]), tensors[number])
    assert [copy.fetched is not None for copy in copies] == [False, False, True, False, False]
    for number in (2, 1, 0):
        assert torch.equal(activations._unpack(copies[number]), tensors[number])
        expected = [other == number - 1 for other in range(5)]
        assert [copy.fetched is not None for copy in copies] == expected
    # the next pass fetches nothing of this one
    with activations.layer():
        assert activations._pack(tensors[0]).layer.previous is None


def test_a_layout_in_memory_comes_back() -> None:
    """Kernels return transposed outputs, and their backward pass reads them as they lie."""
    activations = OffloadedActivations(LateCopies())
    tensor = torch.randn(1, 20, 4, 8).transpose(1, 2)
    copies = []
    for source in (tensor, torch.randn(20, 20), torch.randn(20, 20)):
        with activations.layer():
            copies.append(activations._pack(source))
    restored = activations._unpack(copies[0])
    assert torch.equal(restored, tensor) and restored.stride() == tensor.stride()


class LoggedStream:
    """Stands in for `torch.cuda.Stream`."""

    def __init__(self, log: list[tuple[str, ...]], name: str = "side") -> None:
        self.log, self.name = log, name

    def wait_stream(self, other: "LoggedStream") -> None:
        self.log.append((self.name, "waits for", other.name))

    def wait_event(self, event: Any) -> None:
        self.log.append((self.name, "waits for the event of", event.name))


def test_the_streams_of_cuda_wait_for_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[tuple[str, ...]] = []

    class Event:
        name = "side"

    class On:
        def __init__(self, stream: LoggedStream) -> None:
            self.stream = stream

        def __enter__(self) -> None:
            log.append(("enter", self.stream.name))

        def __exit__(self, *_: object) -> None:
            log.append(("exit", self.stream.name))

    monkeypatch.setattr(torch.cuda, "Stream", lambda: LoggedStream(log))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: LoggedStream(log, "computing"))
    monkeypatch.setattr(torch.cuda, "stream", On)
    stream = copy_streams.CudaCopyStream()
    with stream.copying():
        log.append(("copy",))
    stream.computing_waits(Event())
    assert log == [
        ("side", "waits for", "computing"),
        ("enter", "side"),
        ("copy",),
        ("exit", "side"),
        ("computing", "waits for the event of", "side"),
    ]
