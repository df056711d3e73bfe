"""What happens in memory during a step, in order: plain tuples, so that a step can be unrolled and
replayed without torch.

    ("alloc", id, bytes, component, stream)   a tensor's storage, or a buffer
    ("free", id)
    ("use", parameter)      an operation reads a weight       parameter: (layer or None, name)
    ("gradient", parameter) a weight's gradient is complete
    ("gather", kind)        weights are gathered, `on demand` or `ahead`
    ("mark", name, layer)   a part of the step begins: `forward` and `backward` of a layer, `batch`,
                            `loss`, `optimizer`, `end`
    ("count", {key: n})     operations, FLOPs and bytes since the last mark
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Event = tuple[Any, ...]
Parameter = tuple[int | None, str]
COMPUTE, GATHER, REDUCE, HOST = 0, 1, 2, 3
"""Streams, whose memory the allocator keeps apart; HOST is pinned memory of the machine."""
BLOCK = 512
"""torch's caching allocator rounds each allocation up to a multiple of this."""
CURVE_POINTS = 400


def rounded(num_bytes: int) -> int:
    return -(-num_bytes // BLOCK) * BLOCK


@dataclass
class Usage:
    """Bytes of tensors in the device's memory, without what the allocator keeps."""

    peak: int = 0
    phase: str = ""
    """The mark after which the peak is."""
    at_peak: dict[str, int] = field(default_factory=dict)
    at_rest: dict[str, int] = field(default_factory=dict)
    """After the last event."""
    host_peak: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    """`at` (share of the step's allocations), `phase`, `bytes` by component: of each of up to
    CURVE_POINTS equal parts of the step the highest moment."""


def usage(events: Sequence[Event], start: int = 0) -> Usage:
    """Of the events from `start` on; those before it leave their tensors."""
    result, meter = Usage(), _Meter()
    for event in events[:start]:
        meter.take(event)
    width = max(1, -(-(len(events) - start) // CURVE_POINTS))
    for first in range(start, len(events), width):
        part = Usage()
        for event in events[first : first + width]:
            meter.take(event)
            if meter.total > part.peak or not part.at_peak:
                part.peak, part.phase = meter.total, meter.phase
                part.at_peak = {name: size for name, size in meter.now.items() if size}
            result.host_peak = max(result.host_peak, meter.host)
        share = (first - start) / max(1, len(events) - start)
        result.curve.append({"at": share, "phase": part.phase, "bytes": part.at_peak})
        if part.peak > result.peak:
            result.peak, result.phase, result.at_peak = part.peak, part.phase, part.at_peak
    result.at_rest = {name: size for name, size in meter.now.items() if size}
    return result


def counted(events: Iterable[Event], start: int = 0) -> Counter[Any]:
    """The sum of all counts from `start` on."""
    total: Counter[Any] = Counter()
    for number, event in enumerate(events):
        if event[0] == "count" and number >= start:
            total.update(event[1])
    return total


class _Meter:
    """Bytes that are alive, by what they hold."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.total = self.host = 0
        self.phase = ""
        self._alive: dict[Any, Event] = {}

    def take(self, event: Event) -> None:
        kind = event[0]
        if kind == "alloc":
            self._alive[event[1]] = event
            self._change(event, event[2])
        elif kind == "free" and (alive := self._alive.pop(event[1], None)) is not None:
            self._change(alive, -alive[2])
        elif kind == "mark":
            self.phase = event[1]

    def _change(self, event: Event, size: int) -> None:
        if event[4] == HOST:
            self.host += size
            return
        self.now[event[3]] += size
        self.total += size
