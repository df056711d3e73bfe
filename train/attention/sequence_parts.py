"""Who attends to what where P ranks share a sequence and do not divide its heads: P = a x b.

The heads are exchanged over a ranks and the keys gathered over b. Outside the attention rank r has
the slice r of the sequence with all heads. Inside it has the heads of group r % a, of H / a query
heads, and the queries of part r // a of the sequence, with all keys that they see.

A long document is cut into 2 b pieces, of which part j has the pieces j and 2 b - 1 - j (zigzag):
the first sees few keys and the second as many more, so that all parts have the same work. Short
documents are cut so together, not one by one: most of them stay whole, and no key moves for them.

    P ranks of a sequence   a head groups   b parts   S tokens   s = S / P of a slice
    H query heads   K key/value heads   h = H / a
"""

import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby, pairwise

from ropewalk.train.attention.borders import Ends

Span = tuple[int, int]
"""The first and the end index of tokens or heads."""
Spans = tuple[Span, ...]
LONG = 8
"""A document is cut by itself if it has more than S / (8 b) tokens. Of shorter ones a part may have
about one more than another, which is little of its work."""


def num_head_groups(num_heads: int, sp_size: int) -> int:
    """a: as many as both numbers allow, since queries move once and keys go to b ranks."""
    return math.gcd(num_heads, sp_size)


def query_heads(num_heads: int, groups: int) -> Spans:
    """The query heads of each group."""
    size = num_heads // groups
    return tuple((n * size, (n + 1) * size) for n in range(groups))


def key_heads(num_heads: int, num_kv_heads: int, groups: int) -> Spans:
    """The key/value heads that each group's query heads use. Groups may share one."""
    shared = num_heads // num_kv_heads
    return tuple(
        (low // shared, -(-high // shared)) for low, high in query_heads(num_heads, groups)
    )


def key_head_order(num_heads: int, num_kv_heads: int, groups: int, group: int) -> tuple[int, ...]:
    """A group's key/value heads as a kernel needs them: each for equally many query heads.

    Indices into the group's heads, which repeat where query heads of one group are an uneven share
    of those that use a key: 4 of 12 heads with 3 keys are 0, 1, 1 for the second of four groups.
    """
    size, shared = num_heads // groups, num_heads // num_kv_heads
    step = math.gcd(size, shared)
    first = key_heads(num_heads, num_kv_heads, groups)[group][0]
    return tuple(n // shared - first for n in range(group * size, (group + 1) * size, step))


@dataclass(frozen=True)
class Segment:
    """Queries of one document, and the keys that they see: the last of these are their own."""

    queries: Span
    keys: Span


@dataclass(frozen=True)
class Part:
    """One part of a sequence, in ascending order."""

    segments: tuple[Segment, ...]

    @property
    def queries(self) -> Spans:
        return joined(segment.queries for segment in self.segments)

    @property
    def keys(self) -> Spans:
        """Every key that some query sees, once."""
        return joined(sorted(segment.keys for segment in self.segments))

    @property
    def key_slices(self) -> Spans:
        """Where in `keys`, laid end to end, each segment's keys are; neighbours in one slice."""
        starts = [low for low, _ in self.keys]
        before = [0]
        for low, high in self.keys:
            before.append(before[-1] + high - low)
        slices: list[Span] = []
        for segment in self.segments:
            low, high = segment.keys
            n = bisect_right(starts, low) - 1
            offset = before[n] - starts[n]
            if slices and slices[-1][1] == low + offset:
                slices[-1] = (slices[-1][0], high + offset)
            else:
                slices.append((low + offset, high + offset))
        return tuple(slices)


def joined(spans: Iterable[Span]) -> Spans:
    """The same tokens in as few spans as possible. `spans`: by their first tokens."""
    result: list[Span] = []
    for low, high in spans:
        if result and low <= result[-1][1]:
            result[-1] = (result[-1][0], max(high, result[-1][1]))
        elif low < high:
            result.append((low, high))
    return tuple(result)


def within(spans: Spans, outer: Span) -> Spans:
    """What of `spans` lies in `outer`, counted from its first token."""
    first, end = outer
    cut = ((max(low, first) - first, min(high, end) - first) for low, high in spans)
    return tuple((low, high) for low, high in cut if low < high)


def num_tokens(spans: Spans) -> int:
    return sum(high - low for low, high in spans)


@lru_cache(maxsize=16)
def parts_of(ends: Ends, count: int, window: int | None) -> tuple[Part, ...]:
    """The `count` parts of a sequence of documents.

    `window`: the keys that a query sees at most, its own included. Cached: once a step, not once a
    layer.
    """
    units = _units(ends, count)
    return tuple(
        Part(_segments(ends, _zigzag(units, count, part), window)) for part in range(count)
    )


def _units(ends: Ends, count: int) -> list[Span]:
    """What is cut by itself: each long document, and short documents that follow one another."""
    units: list[Span] = []
    limit = ends[-1] / (LONG * count)
    for is_long, run in groupby(pairwise(ends), lambda d: d[1] - d[0] > limit):
        documents = list(run)
        units += documents if is_long else [(documents[0][0], documents[-1][1])]
    return units


def _zigzag(units: list[Span], count: int, part: int) -> Spans:
    return joined(
        (low + (high - low) * piece // (2 * count), low + (high - low) * (piece + 1) // (2 * count))
        for low, high in units
        for piece in (part, 2 * count - 1 - part)
    )


def _segments(ends: Ends, queries: Spans, window: int | None) -> tuple[Segment, ...]:
    segments = []
    for first, end in queries:
        number = bisect_right(ends, first) - 1
        while first < end:
            start, stop = ends[number], min(ends[number + 1], end)
            if first < stop:  # documents may be empty
                reach = start if window is None else max(start, first - window + 1)
                segments.append(Segment((first, stop), (reach, stop)))
            first, number = stop, number + 1
    return tuple(segments)


@dataclass(frozen=True)
class Route:
    """Which tokens go where, on one rank."""

    send: tuple[Spans, ...]
    """By part: the tokens of this rank's slice that the part needs, counted from its start."""
    receive: tuple[int, ...]
    """By rank of the sequence: the tokens that this rank gets from it."""


def route(needs: tuple[Spans, ...], part: int, rank: int, slices: tuple[Span, ...]) -> Route:
    """`needs`: the tokens of each part. `part`: of this rank. `slices`: the ranks' tokens."""
    return Route(
        tuple(within(spans, slices[rank]) for spans in needs),
        tuple(num_tokens(within(needs[part], outer)) for outer in slices),
    )


@dataclass(frozen=True)
class RankPlan:
    """What one rank sends, gets and attends to."""

    part: Part
    queries: Route
    keys: Route


@lru_cache(maxsize=16)
def plan_of_rank(ends: Ends, sp_size: int, groups: int, rank: int, window: int | None) -> RankPlan:
    """`rank`: of the `sp_size` ranks of a sequence. Cached as `parts_of` is."""
    parts = parts_of(ends, sp_size // groups, window)
    size = ends[-1] // sp_size
    slices = tuple((n * size, (n + 1) * size) for n in range(sp_size))
    own = rank // groups
    return RankPlan(
        parts[own],
        route(tuple(part.queries for part in parts), own, rank, slices),
        route(tuple(part.keys for part in parts), own, rank, slices),
    )
