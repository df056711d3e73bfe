"""Documents by their length, counted one by one."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.conf.data_mixture import Range, rules
from ropewalk.conf.errors import DataError
from ropewalk.data.mixing import lengths

AT_BORDERS = st.sampled_from([(1 << n) + step for n in range(10, 22, 2) for step in (-1, 0, 1)])
SIZES = st.lists(st.one_of(st.integers(1, 3_000_000), AT_BORDERS), min_size=1, max_size=30)


def test_rates_of_fu_by_hand() -> None:
    """Documents below 4K come in one round of ten, those above 8K twice, the others once."""
    found = lengths.rates(
        np.array([1, 4095, 4096, 8192, 8193, 500_000]), rules({">8K": 2.0, "<4K": 0.1})
    )
    assert found.tolist() == [0.1, 0.1, 1, 1, 2, 2]  # type: ignore[union-attr]
    assert lengths.rates(np.array([5]), []) == 1.0


@given(SIZES, st.integers(1, 3_000_000), st.integers(1, 3_000_000))
def test_what_lies_outside_is_what_is_shorter_or_longer(
    sizes: list[int], low: int, high: int
) -> None:
    low, high = sorted((low, high))
    train = np.array([size % 3 > 0 for size in sizes])
    wanted = [
        t and (size < low or size > high) for t, size in zip(train.tolist(), sizes, strict=True)
    ]
    if train.any() and sum(wanted) == train.sum():
        with pytest.raises(
            DataError,
            match=r"^data\.sources\.a\.m(in|ax)_len is \d+; a source must keep a document, and all",
        ):
            lengths.outside("a", np.array(sizes), train, Range(low, high + 1))
    else:
        assert lengths.outside("a", np.array(sizes), train, Range(low, high + 1)).tolist() == wanted


def test_source_that_is_left_out_whole_is_refused_by_the_setting_that_does_it() -> None:
    sizes, train = np.array([10, 20, 500]), np.array([True, True, False])
    with pytest.raises(
        DataError,
        match=r"^data\.sources\.a\.min_len is 30; .* all 2 training .* \(they have 10 to 20 tokens\)",
    ):
        lengths.outside("a", sizes, train, Range(30, math.inf))
    with pytest.raises(DataError, match=r"^data\.sources\.a\.max_len is 9; "):
        lengths.outside("a", sizes, train, Range(1, 10))
