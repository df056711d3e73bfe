"""The mixed order of all takings, in blocks, against `numpy.lexsort`."""

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.data import hash_random
from ropewalk.data.mixing import mixed_order
from ropewalk.data.mixing.mixed_order import Takings, mixed, num_blocks, order_of
from ropewalk.data.mixing.rounds import Selection


@settings(deadline=None)
@given(
    st.lists(
        st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 3), st.integers(2**63, 2**63 + 9)),
        max_size=60,
    ),
    st.randoms(),
)
def test_order_of_is_lexsort(numbers: list[int], rng: object) -> None:
    """Close keys differ in bits that the sort drops at first; equal ones are ordered by ties."""
    keys = np.array(numbers, dtype=np.uint64)
    ties = np.array([rng.randrange(5) for _ in numbers], dtype=np.uint64)  # type: ignore[attr-defined]
    assert order_of(keys, ties).tolist() == np.lexsort((ties, keys)).tolist()


def selection_of(documents: int, first: int, epochs: int = 1) -> Selection:
    index = np.tile(np.arange(first, first + documents), epochs)
    epoch = np.repeat(np.arange(epochs), documents)
    return Selection(index, 1 + index % 7, epoch, index.astype(np.uint64) * np.uint64(977))


def by_lexsort(parts: dict[str, list[Selection]], first: dict[str, int], seed: int) -> np.ndarray:
    """(takings, 3): source, document, tokens."""
    rows, keys = [], []
    for number, (name, selections) in enumerate(parts.items()):
        for part in selections:
            source = np.full(len(part.index), number)
            rows.append(np.stack([source, first[name] + part.index, part.lengths], axis=1))
            keys.append(hash_random.sort_keys(seed, f"mix:{name}", part.key, part.epoch))
    table, key = np.concatenate(rows), np.concatenate(keys)
    return table[np.lexsort((table[:, 1], key))]


def joined(blocks: list[Takings]) -> np.ndarray:
    return np.concatenate([np.stack(block, axis=1) for block in blocks])


@pytest.mark.parametrize("blocks", [1, 2, 3, 7, 300])
def test_blocks_end_to_end_are_the_mixed_order(blocks: int, tmp_path: Path) -> None:
    parts = {
        "a": [selection_of(3000, 0), selection_of(500, 3000, epochs=3)],
        "b": [selection_of(900, 0)],
        "c": [selection_of(0, 0)],
    }
    first = {"a": 0, "b": 3500, "c": 4400}
    actual = list(mixed(parts, first, 5, tmp_path, blocks))
    assert len(actual) == blocks
    assert (joined(actual) == by_lexsort(parts, first, 5)).all()
    mean = len(joined(actual)) / blocks
    assert all(abs(len(block.document) - mean) <= 6 * mean**0.5 for block in actual)
    assert not list(tmp_path.iterdir())


def test_a_plan_of_sixteen_million_takings_is_one_block_as_before() -> None:
    assert [num_blocks(n) for n in (0, 1, 10_000_000, 1 << 24)] == [1, 1, 1, 1]
    assert [num_blocks(n) for n in ((1 << 24) + 1, 100_000_000)] == [9, 48]
    with patch.object(mixed_order, "ONE_BLOCK", 10), patch.object(mixed_order, "BLOCK", 4):
        assert [num_blocks(n) for n in (10, 11, 12, 13)] == [1, 3, 3, 4]
