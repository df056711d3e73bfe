"""Few layers unrolled against a program that writes the events of as many layers as are asked."""

from collections.abc import Iterator

import pytest

from ropewalk.train.trace.events import COMPUTE, Event, usage
from ropewalk.train.trace.unroll import OFFLOADING, USUAL, Depth, UnequalLayersError, unroll

MIB = 1 << 20


class Program:
    """A step: each layer reads its weight, leaves its input for its backward pass, and frees what
    the layer before it made."""

    def __init__(self, layers: int, sizes: dict[int, int] | None = None) -> None:
        self.layers, self.sizes, self.number = layers, sizes or {}, 0

    def events(self) -> list[Event]:
        return [event for _ in range(2) for event in self.step()]

    def alloc(self, size: int, name: str) -> Event:
        self.number += 1
        return ("alloc", self.number, size * MIB, name, COMPUTE)

    def step(self) -> Iterator[Event]:
        yield ("mark", "step", None)
        hidden = self.alloc(4, "hidden")
        yield hidden
        kept, inputs = [], [hidden]
        for layer in range(self.layers):
            yield ("mark", "forward", layer)
            yield ("use", (layer, "weight"))
            work = self.alloc(self.sizes.get(layer, 8), "work")
            output, checkpoint = self.alloc(4, "hidden"), self.alloc(1, "kept")
            yield from (work, output, checkpoint, ("free", work[1]), ("free", inputs[-1][1]))
            yield ("count", {"flops": 10})
            kept.append(checkpoint)
            inputs.append(output)
        yield ("mark", "loss", None)
        grad = self.alloc(6, "grad")
        yield from (grad, ("use", (None, "head")), ("free", inputs[-1][1]))
        for layer in reversed(range(self.layers)):
            yield ("mark", "backward", layer)
            yield ("use", (layer, "weight"))
            new = self.alloc(6, "grad")
            yield from (new, ("gradient", (layer, "weight")))
            yield from (("free", grad[1]), ("free", kept[layer][1]), ("count", {"flops": 30}))
            grad = new
        yield from (("mark", "optimizer", None), ("free", grad[1]), ("mark", "end", None))


def shapes(events: list[Event]) -> list[Event]:
    """Events with ids in the order of their allocation."""
    order: dict[object, int] = {}
    result: list[Event] = []
    for event in events:
        if event[0] == "alloc":
            order[event[1]] = len(order)
        if event[0] in ("alloc", "free"):
            event = (event[0], order[event[1]], *event[2:])
        result.append(event)
    return result


@pytest.mark.parametrize("depth", [USUAL, OFFLOADING])
@pytest.mark.parametrize("layers", [8, 9, 32])
def test_events_are_those_of_the_program_with_all_layers(depth: Depth, layers: int) -> None:
    unrolled = unroll(Program(depth.layers).events(), depth, layers)
    assert shapes(unrolled) == shapes(Program(layers).events())


def test_the_peak_grows_by_what_a_layer_keeps() -> None:
    few, many = (usage(unroll(Program(4).events(), USUAL, n)).peak for n in (10, 50))
    assert many - few == 40 * MIB


def test_layers_that_differ_are_refused() -> None:
    with pytest.raises(UnequalLayersError):
        unroll(Program(4, sizes={2: 9}).events(), USUAL, 8)


def test_ends_may_differ() -> None:
    sizes = {0: 20, 3: 30}
    unrolled = unroll(Program(4, sizes).events(), USUAL, 12)
    assert shapes(unrolled) == shapes(Program(12, {0: 20, 11: 30}).events())
