"""The borders of shards, and the values of --shard."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.conf.errors import ConfigError
from ropewalk.data.tokens import shards

LIMIT = shards.SHARD_BYTES


@given(st.lists(st.integers(0, 3 * LIMIT), max_size=30))
def test_shards_cover_the_units_in_order_and_are_as_large_as_possible(sizes: list[int]) -> None:
    borders = shards.borders(sizes)
    assert [n for part in borders for n in part] == list(range(len(sizes)))
    assert all(sum(sizes[n] for n in part) <= LIMIT or len(part) == 1 for part in borders)
    assert all(sum(sizes[n] for n in part) + sizes[part.stop] > LIMIT for part in borders[:-1])


def test_more_units_at_the_end_move_no_finished_border() -> None:
    sizes = [LIMIT // 3] * 10
    assert (
        shards.borders([*sizes, 7, 9])[:3]
        == shards.borders(sizes)[:3]
        == [range(0, 3), range(3, 6), range(6, 9)]
    )


@pytest.mark.parametrize(
    ("word", "expected"), [("0/1", (0, 1)), ("3/4", (3, 4)), ("12/100", (12, 100))]
)
def test_a_task_is_parsed(word: str, expected: tuple[int, int]) -> None:
    assert shards.parse_task(word) == expected


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("4/4", "i must be below n, tasks are counted from 0; the last is 3/4"),
        ("9/2", "i must be below n, tasks are counted from 0; the last is 1/2"),
        *(
            (w, "it must be I/N, task I of N counted from 0; e.g. --shard 0/4")
            for w in ("", "1", "-1/4", "a/4", "0/0", "1/2/3")
        ),
    ],
)
def test_an_impossible_task_is_refused(word: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        shards.parse_task(word)
    assert str(error.value) == f"--shard is {word}; {message}"


def test_a_shard_may_be_full_to_the_last_byte() -> None:
    sizes = [LIMIT, LIMIT - 1, 1, 1, LIMIT + 5, 1]
    ends = [1, 3, 4, 5, 6]
    assert shards.borders(sizes) == [*map(range, [0, *ends], ends)]
