"""Where shards begin and end, and what --shard may say. Pure."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.conf.errors import ConfigError
from ropewalk.data.tokens import shards

MOST = shards.SHARD_BYTES


@given(st.lists(st.integers(0, 3 * MOST), max_size=30))
def test_shards_cover_the_units_in_order_and_none_could_take_the_next(sizes: list[int]) -> None:
    found = shards.borders(sizes)
    assert [n for part in found for n in part] == list(range(len(sizes)))
    assert all(sum(sizes[n] for n in part) <= MOST or len(part) == 1 for part in found)
    assert all(sum(sizes[n] for n in part) + sizes[part.stop] > MOST for part in found[:-1])


def test_more_units_at_the_end_move_no_finished_border() -> None:
    sizes = [MOST // 3] * 10
    assert (
        shards.borders([*sizes, 7, 9])[:3]
        == shards.borders(sizes)[:3]
        == [range(0, 3), range(3, 6), range(6, 9)]
    )


@pytest.mark.parametrize(
    ("word", "wanted"), [("0/1", (0, 1)), ("3/4", (3, 4)), ("12/100", (12, 100))]
)
def test_a_task_is_read(word: str, wanted: tuple[int, int]) -> None:
    assert shards.task(word) == wanted


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("4/4", "i must be below n, tasks are counted from 0; the last is 3/4"),
        ("9/2", "i must be below n, tasks are counted from 0; the last is 1/2"),
        *(
            (w, "it must be I/N, task I of N counted from 0; e.g. --shard 0/4")
            for w in ("", "1", "-1/4", "a/4", "0/0", "1/2/3")
        ),
    ],
)
def test_a_task_that_cannot_be_is_refused(word: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        shards.task(word)
    assert str(error.value) == f"--shard is {word}; {said}"
