"""From a trace of a few decoder layers to that of all: layers repeat, event by event.

The layers of a model with equal shapes allocate, free and read alike, but for the first and the
last. A middle layer's events are repeated; what it frees of its neighbours becomes what its copies
free of theirs. That two middle layers of the trace are equal, relative to themselves, is checked,
so that nothing is assumed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ropewalk.train.trace.events import Event


@dataclass(frozen=True)
class Depth:
    """How many layers are traced, and which of them is repeated."""

    layers: int
    template: int


USUAL = Depth(4, 1)
OFFLOADING = Depth(7, 3)
"""A layer frees what the layer two before it left, and the last two stay on the device."""


class UnequalLayersError(Exception):
    """Two middle layers of a trace differ, so that the others are not known from them."""


@dataclass(frozen=True)
class _Owner:
    """Where an id was allocated: as the `ordinal`-th of a block."""

    block: int
    ordinal: int


@dataclass
class _Block:
    """The events between two marks. `run`: which forward or backward pass it is part of, counted
    from the start; of other parts it is alone."""

    run: int
    layer: int | None
    events: list[Event]


def unroll(events: Sequence[Event], depth: Depth, layers: int) -> list[Event]:
    """`events` of `depth.layers` layers as those of `layers`, at least as many.

    Raises: UnequalLayersError.
    """
    blocks = _blocks(events)
    owners = {
        event[1]: _Owner(number, ordinal)
        for number, block in enumerate(blocks)
        for ordinal, event in enumerate(e for e in block.events if e[0] == "alloc")
    }
    relative = [_relative(block, blocks, owners) for block in blocks]
    _check(blocks, relative, depth)
    copies = _Copies(depth.template, layers - depth.layers)
    return [
        event
        for number, layer in _order(blocks, copies)
        for event in _placed(blocks, relative[number], number, layer, copies)
    ]


def _blocks(events: Sequence[Event]) -> list[_Block]:
    blocks = [_Block(-1, None, [])]
    previous: tuple[str, int] | None = None
    run = 0
    for event in events:
        if event[0] == "mark":
            name, layer = event[1:]
            neighbours = layer is not None and previous is not None and previous[0] == name
            if not (neighbours and previous and abs(layer - previous[1]) == 1):
                run += 1
            previous = None if layer is None else (name, layer)
            blocks.append(_Block(run, layer, []))
        blocks[-1].events.append(event)
    return blocks


def _relative(
    block: _Block, blocks: Sequence[_Block], owners: dict[Any, _Owner]
) -> list[tuple[Any, ...]]:
    """A block's events with every id as (run, layers from here, ordinal), and every parameter's
    layer as its distance; outside the layers they stay as they are."""
    result: list[tuple[Any, ...]] = []
    ordinal = 0
    for event in block.events:
        if event[0] == "alloc":
            result.append(("alloc", ordinal, *event[2:]))
            ordinal += 1
        elif event[0] == "free":
            owner = owners[event[1]]
            result.append(("free", *_reference(owner, block, blocks)))
        elif event[0] in ("use", "gradient"):
            layer, name = event[1]
            inside = layer is not None and block.layer is not None
            result.append((event[0], inside, layer - block.layer if inside else layer, name))
        elif event[0] == "mark":
            result.append(("mark", event[1]))
        else:
            result.append(event)
    return result


def _reference(owner: _Owner, block: _Block, blocks: Sequence[_Block]) -> tuple[Any, ...]:
    """(run, distance, ordinal) of an id of a layer that a layer frees; else (block, None, ...)."""
    other = blocks[owner.block]
    if other.layer is None or block.layer is None:
        return owner.block, None, owner.ordinal
    return other.run, other.layer - block.layer, owner.ordinal


def _check(
    blocks: Sequence[_Block], relative: Sequence[list[tuple[Any, ...]]], depth: Depth
) -> None:
    of_layer: dict[tuple[int, int], list[tuple[Any, ...]]] = {
        (block.run, block.layer): events
        for block, events in zip(blocks, relative, strict=True)
        if block.layer is not None
    }
    runs = sorted({run for run, _ in of_layer})
    for run in runs:
        pair = [of_layer.get((run, depth.template + n)) for n in (0, 1)]
        if pair[0] is None or pair[0] != pair[1] or (run, depth.layers - 1) not in of_layer:
            raise UnequalLayersError(f"layers {depth.template} and {depth.template + 1} differ")


@dataclass(frozen=True)
class _Copies:
    """The layers that the template stands for: itself and `extra` more."""

    template: int
    extra: int

    @property
    def layers(self) -> range:
        return range(self.template, self.template + self.extra + 1)

    def shifted(self, layer: int | None) -> int | None:
        """The number of a traced layer among all."""
        return layer if layer is None or layer <= self.template else layer + self.extra


def _order(blocks: Sequence[_Block], copies: _Copies) -> Iterator[tuple[int, int | None]]:
    """The blocks of the unrolled step, each with its new layer."""
    for number, block in enumerate(blocks):
        if block.layer != copies.template:
            yield number, copies.shifted(block.layer)
            continue
        after = blocks[number + 1].layer if number + 1 < len(blocks) else None
        is_forward = after == copies.template + 1
        for layer in copies.layers if is_forward else reversed(copies.layers):
            yield number, layer


def _placed(
    blocks: Sequence[_Block],
    events: Sequence[tuple[Any, ...]],
    number: int,
    layer: int | None,
    copies: _Copies,
) -> Iterator[Event]:
    """A block's events as those of `layer`. An id is (run or block, layer, ordinal)."""
    block = blocks[number]
    own = (block.run, layer) if layer is not None else (("block", number), None)
    for event in events:
        if event[0] == "alloc":
            yield ("alloc", (*own, event[1]), *event[2:])
        elif event[0] == "free":
            for identity in _identities(blocks, event[1:], layer, copies):
                yield ("free", identity)
        elif event[0] in ("use", "gradient"):
            yield from _parameters(event, layer, copies)
        elif event[0] == "mark":
            yield ("mark", event[1], layer)
        else:
            yield event


def _identities(
    blocks: Sequence[_Block], reference: tuple[Any, ...], layer: int | None, copies: _Copies
) -> Iterator[Any]:
    where, distance, ordinal = reference
    if distance is not None:
        assert layer is not None
        yield (where, layer + distance, ordinal)
        return
    owner = blocks[where]
    if owner.layer is None:
        yield (("block", where), None, ordinal)
    elif owner.layer == copies.template:  # of every copy
        for copy in copies.layers:
            yield (owner.run, copy, ordinal)
    else:
        yield (owner.run, copies.shifted(owner.layer), ordinal)


def _parameters(event: tuple[Any, ...], layer: int | None, copies: _Copies) -> Iterator[Event]:
    kind, inside, distance, name = event
    if inside:
        assert layer is not None
        yield (kind, (layer + distance, name))
    elif distance == copies.template:
        for copy in copies.layers:
            yield (kind, (copy, name))
    else:
        yield (kind, (copies.shifted(distance), name))
