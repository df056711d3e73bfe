"""The reduce-scatter of ZeRO 3: DeepSpeed's numbers to the bit, in operations that do not grow."""

import numpy as np
import pytest
import ranks
import reduce_scatter_ranks


@pytest.mark.parametrize("world", [1, 2, 3])
def test_the_parts_are_those_of_deepspeed_to_the_bit(world: int) -> None:
    for calls in ranks.run(world, reduce_scatter_ranks.parts_of_both):
        for expected, actual in calls:
            assert len(actual) == len(expected)
            for a, b in zip(actual, expected, strict=True):
                assert a.shape == b.shape and np.array_equal(a, b)


def test_operations_do_not_grow_with_the_ranks() -> None:
    few, many = (ranks.run(1, reduce_scatter_ranks.operations, world)[0] for world in (8, 512))
    assert few["ours"] == many["ours"] < 100
    assert many["deepspeed"] > 9 * 512 - 9  # what is mended: a slice for every rank


def test_zero_3_finds_the_function_where_it_is_replaced() -> None:
    assert ranks.run(1, reduce_scatter_ranks.called_by_stage3) == [True]
