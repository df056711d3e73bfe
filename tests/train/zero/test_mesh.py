"""Who reads what: ranks of one sequence are neighbours."""

from datetime import timedelta

import mesh_ranks
import pytest
import ranks


def test_ranks_of_a_sequence_are_neighbours() -> None:
    result = ranks.run(4, mesh_ranks.coordinates, 2)
    assert result == [(0, 0, 2, 2), (0, 1, 2, 2), (1, 0, 2, 2), (1, 1, 2, 2)]


def test_a_size_that_does_not_divide_is_refused_with_one_that_does() -> None:
    with pytest.raises(
        AssertionError,
        match=r"train.sp_size is 2; it must divide the number of ranks, 3; set train.sp_size=1",
    ):
        ranks.run(3, mesh_ranks.coordinates, 2)


def test_a_wait_that_is_right_is_not_ended_by_torch() -> None:
    """Its default is 10 minutes for NCCL, in which rank 0 may not have written a large model; who hangs is found by train.launcher.hang_timeout_s."""
    assert all(result >= timedelta(hours=12) for result in ranks.run(1, mesh_ranks.timeouts)[0])
