"""The mesh: ranks that share a sequence are neighbours."""

from datetime import timedelta

import mesh_ranks
import pytest
import ranks


def test_ranks_of_a_sequence_are_neighbours() -> None:
    result = ranks.run(4, mesh_ranks.coordinates, 2)
    assert result == [(0, 0, 2, 2), (0, 1, 2, 2), (1, 0, 2, 2), (1, 1, 2, 2)]


def test_a_size_that_does_not_divide_the_ranks_is_refused_with_one_that_does() -> None:
    message = "train.sp_size is 2; it must divide the number of ranks, 3; set train.sp_size=1"
    with pytest.raises(AssertionError, match=message):
        ranks.run(3, mesh_ranks.coordinates, 2)


def test_torch_does_not_end_a_long_wait() -> None:
    """NCCL's default is 10 minutes, too short for rank 0 to write a large model.

    train.launcher.hang_timeout_s finds ranks that hang.
    """
    assert all(result >= timedelta(hours=12) for result in ranks.run(1, mesh_ranks.timeouts)[0])
