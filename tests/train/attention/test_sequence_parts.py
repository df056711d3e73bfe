"""Who attends to what where ranks do not divide the heads: counted by hand and token by token."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.train.attention import sequence_parts
from ropewalk.train.attention.sequence_parts import Part, parts_of


def ends_of(lengths: list[int]) -> tuple[int, ...]:
    return (0, *np.cumsum(lengths).tolist())


def pairs(part: Part) -> int:
    """Query-key pairs of a part's causal masks, which are aligned to the bottom right."""
    total = 0
    for segment in part.segments:
        queries, keys = (b - a for a, b in (segment.queries, segment.keys))
        total += queries * (keys - queries) + queries * (queries + 1) // 2
    return total


def test_head_groups_are_as_many_as_divide_ranks_and_heads() -> None:
    """Qwen2.5-7B, SmolLM2-135M, Llama 3 8B, and one head."""
    groups = {n: sequence_parts.num_head_groups(n, 8) for n in (28, 9, 32, 1, 12)}
    assert groups == {28: 4, 9: 1, 32: 8, 1: 1, 12: 4}


@pytest.mark.parametrize(("heads", "shared"), [(28, 4), (12, 3), (6, 3), (9, 3), (7, 7), (20, 5)])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_group_has_the_keys_of_its_heads_and_no_others(
    heads: int, shared: int, groups: int
) -> None:
    """transformers' repeat_kv: query head n uses key head n // (H / K)."""
    if heads % groups:
        return
    spans = sequence_parts.key_heads(heads, shared, groups)
    for group, (low, high) in enumerate(spans):
        of_queries = [n // (heads // shared) for n in range(heads)]
        own = of_queries[group * heads // groups : (group + 1) * heads // groups]
        assert sorted(set(own)) == list(range(low, high))
        order = sequence_parts.key_head_order(heads, shared, groups, group)
        # the kernel repeats each of the keys that it is given equally often
        repeated = [low + n for n in order for _ in range(len(own) // len(order))]
        assert repeated == own
        assert len(order) == math.lcm(shared, groups) // groups


def test_one_document_in_a_zigzag() -> None:
    first, second = parts_of((0, 80), 2, None)
    assert (first.queries, second.queries) == (((0, 20), (60, 80)), ((20, 60),))
    assert (first.keys, second.keys) == (((0, 80),), ((0, 60),))
    assert first.key_slices == ((0, 20), (0, 80))


def test_a_window_leaves_out_keys() -> None:
    first, second = parts_of((0, 80), 2, 5)
    assert first.keys == ((0, 20), (56, 80)) and second.keys == ((16, 60),)
    assert first.key_slices == ((0, 44),)


def test_short_documents_stay_whole() -> None:
    """Forty of 16 tokens, of which 8 cuts fall on borders: no part sees a key of another."""
    for part in parts_of(ends_of([16] * 40), 4, None):
        assert part.keys == part.queries


LENGTHS = st.lists(st.integers(0, 60), min_size=1, max_size=30).filter(any)


@given(LENGTHS, st.sampled_from([2, 3, 4, 8]), st.sampled_from([None, 1, 4, 17]))
def test_every_query_is_in_one_part_with_the_keys_that_it_sees(
    lengths: list[int], count: int, window: int | None
) -> None:
    ends = ends_of(lengths)
    starts = np.repeat(ends[:-1], lengths)
    seen = np.zeros(ends[-1], dtype=int)
    for part in parts_of(ends, count, window):
        received = [n for low, high in part.keys for n in range(low, high)]
        laid = [received[n] for low, high in part.key_slices for n in range(low, high)]
        assert len(set(received)) == len(received)
        assert [n for segment in part.segments for n in range(*segment.keys)] == laid
        for segment in part.segments:
            low, high = segment.keys
            seen[slice(*segment.queries)] += 1
            assert high == segment.queries[1] and starts[low] == starts[high - 1]
            reach = ends[-1] if window is None else window
            assert low == max(starts[low], segment.queries[0] - reach + 1)
    assert (seen == 1).all()


@pytest.mark.parametrize("count", [2, 4, 8])
@pytest.mark.parametrize(
    "lengths",
    [[4096], [3000, 1096], [1096, 3000], [2048, *[64] * 32], [*[64] * 32, 2048], [64] * 64],
    ids=["one", "long and short", "short and long", "long and many", "many and long", "many"],
)
def test_parts_have_equal_tokens_and_equal_work(lengths: list[int], count: int) -> None:
    """A zigzag over the row without regard to documents would give three quarters of the work of
    "long and many" to one of two parts.
    """
    parts = parts_of(ends_of(lengths), count, None)
    tokens = [sequence_parts.num_tokens(part.queries) for part in parts]
    work = [pairs(part) for part in parts]
    assert sum(work) == sum(n * (n + 1) // 2 for n in lengths)
    assert max(tokens) - min(tokens) <= 2 * len(lengths)
    assert max(work) < 1.02 * sum(work) / count
