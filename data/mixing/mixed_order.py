"""The takings of all sources in mixed order, the order of a hash, in blocks of it. Pure but for
files that are deleted again.

Block b of n holds the hashes from b / n to (b + 1) / n of their range. More than one block is
sorted out in files, one a block, so memory holds a block.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ropewalk.data import hash_random
from ropewalk.data.mixing.rounds import Selection

ONE_BLOCK = 1 << 24  # takings up to which a plan is one block, as it was before there were blocks
BLOCK = 1 << 21  # takings of a block, about, of a larger plan
SOURCE_SHIFT = 48  # a taking's place: source << 48 | document


class Takings(NamedTuple):
    """Takings in mixed order, each (takings,) int64."""

    source: np.ndarray  # index of the source
    document: np.ndarray  # number of the document among those of all sources
    tokens: np.ndarray


def num_blocks(takings: int) -> int:
    """By the number of takings alone, so that a plan does not depend on the machine."""
    return 1 if takings <= ONE_BLOCK else -(-takings // BLOCK)


def mixed(
    parts: Mapping[str, Iterable[Selection]],
    first: Mapping[str, int],
    seed: int,
    folder: Path,
    blocks: int = 1,
) -> Iterator[Takings]:
    """The takings of all sources in the order of their hash, a block at a time.

    `first[name]` is the number of the source's first document. `folder` gets the files of more
    than one block. `parts` are read before the first block is returned.
    """
    tables = _tables(parts, first, seed)
    if blocks == 1:
        empty = np.empty((3, 0), dtype=np.uint64)
        yield _in_order(np.concatenate([empty, *tables], axis=1))
        return
    counts = [_sort_out(table, blocks, folder) for table in tables]
    for block in range(blocks):
        yield _in_order(_read(folder, block, [count[block] for count in counts]))


def _tables(
    parts: Mapping[str, Iterable[Selection]], first: Mapping[str, int], seed: int
) -> Iterator[np.ndarray]:
    """(3, takings) uint64 of each part: hash, place, tokens."""
    for number, (name, selections) in enumerate(parts.items()):
        for part in selections:
            sort_keys = hash_random.sort_keys(seed, f"mix:{name}", part.key, part.epoch)
            place = (number << SOURCE_SHIFT) + first[name] + part.index
            yield np.stack([sort_keys, place.astype(np.uint64), part.lengths.astype(np.uint64)])


def _sort_out(table: np.ndarray, blocks: int, folder: Path) -> list[int]:
    """Append each taking to the file of its block. Returns how many each block got."""
    leading = table[0] >> np.uint64(32)
    block = (leading * np.uint64(blocks)) >> np.uint64(32)
    # numpy sorts integers of 8 and 16 bits by counting
    block = block.astype(np.uint8 if blocks <= 256 else np.uint16 if blocks <= 65536 else int)
    counts = np.bincount(block, minlength=blocks)
    by_block = table[:, np.argsort(block, kind="stable")]
    for number, part in enumerate(np.split(by_block, np.cumsum(counts)[:-1], axis=1)):
        with _file(folder, number).open("ab") as file:
            file.write(np.ascontiguousarray(part).data)
    return counts.tolist()  # type: ignore[no-any-return]


def _file(folder: Path, block: int) -> Path:
    return folder / f".takings-{block}"


def _read(folder: Path, block: int, counts: list[int]) -> np.ndarray:
    """The takings of a block (3, takings), whose file is deleted."""
    file = _file(folder, block)
    numbers = np.fromfile(file, dtype=np.uint64)
    file.unlink()
    parts = np.split(numbers, 3 * np.cumsum(counts)[:-1])
    return np.concatenate([part.reshape(3, -1) for part in parts], axis=1)


def _in_order(table: np.ndarray) -> Takings:
    place = table[1] & np.uint64((1 << SOURCE_SHIFT) - 1)
    order = order_of(table[0], place)
    source, document = table[1][order] >> np.uint64(SOURCE_SHIFT), place[order]
    return Takings(*(a.view(np.int64) for a in (source, document, table[2][order])))


def order_of(keys: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """`np.lexsort((ties, keys))` of two (n,) uint64 arrays, in a third of its time.

    Sorting numbers is four times as fast as sorting indices. So the last bits of each key are
    replaced by its index; the few keys that are equal otherwise are sorted again.
    """
    if len(keys) < 2:
        return np.arange(len(keys))
    bits = np.uint64(int(len(keys) - 1).bit_length())
    low, high = int(keys.min()), int(keys.max())
    lead = np.uint64(64 - max((high - low).bit_length(), 1))
    sorted_keys = ((keys - np.uint64(low)) << lead) >> bits << bits
    sorted_keys |= np.arange(len(keys), dtype=np.uint64)
    sorted_keys.sort()
    order = (sorted_keys & ((np.uint64(1) << bits) - np.uint64(1))).view(np.int64)
    equal = np.flatnonzero(np.diff(sorted_keys >> bits) == 0)
    again = np.unique(np.concatenate([equal, equal + 1]))
    chosen = order[again]
    order[again] = chosen[np.lexsort((ties[chosen], keys[chosen]))]
    return order
