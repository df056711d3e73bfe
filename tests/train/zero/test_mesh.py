"""The mesh: ranks that share a sequence are neighbours."""

import inspect
import socket
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import mesh_ranks
import pytest
import ranks
import torch.distributed as dist

from ropewalk.launch.config.compose import compose
from ropewalk.train.zero import mesh


def test_ranks_of_a_sequence_are_neighbours() -> None:
    result = ranks.run(4, mesh_ranks.coordinates, 2)
    assert result == [(0, 0, 2, 2), (0, 1, 2, 2), (1, 0, 2, 2), (1, 1, 2, 2)]


def test_a_size_that_does_not_divide_the_ranks_is_refused_with_one_that_does() -> None:
    message = "train.sp_size is 2; it must divide the number of ranks, 3; set train.sp_size=1"
    with pytest.raises(AssertionError, match=message):
        ranks.run(3, mesh_ranks.coordinates, 2)


def test_torch_does_not_end_a_long_wait_and_nobody_waits_long_for_a_rank_that_never_comes() -> None:
    """NCCL's default is 10 minutes, too short for rank 0 to write a large model; the watchdog finds
    ranks that hang. The first meeting has no watchdog yet."""
    results = ranks.run(1, mesh_ranks.timeouts)[0]
    assert all(result >= timedelta(hours=12) for result in results["groups"])
    default = compose(["recipe=demo"]).train.launcher.start_timeout_s
    assert results["store"] == timedelta(seconds=default) <= timedelta(minutes=30)


def test_ranks_that_do_not_come_are_named_within_the_timeout() -> None:
    (late,) = ranks.run(1, mesh_ranks.join, 0, 3, 1.0, timeout_s=60)
    assert late.startswith(
        "train.launcher.start_timeout_s is 1; 2 of 3 ranks did not come in that time: 1-2; "
        f"there are ranks from {socket.gethostname()}; "
    )
    (no_store,) = ranks.run(1, mesh_ranks.join, 1, 3, 1.0, timeout_s=60)
    assert (
        "; rank 0's store at 127.0.0.1:" in no_store and "did not answer in that time" in no_store
    )
    (taken,) = ranks.run(1, mesh_ranks.join_at_taken_port, timeout_s=60)
    assert taken.startswith("rank 0 cannot open its store at 127.0.0.1:")
    assert taken.endswith("set train.launcher.master_port")


def test_every_rank_makes_its_own_groups_only() -> None:
    """The members are right, and they exchange; DeepSpeed's way makes each group on each rank."""
    results = ranks.run(4, mesh_ranks.sequence_groups)
    assert [result["members"] for result in results] == [[0, 1], [0, 1], [2, 3], [2, 3]]
    assert [result["sum"] for result in results] == [1.0, 1.0, 5.0, 5.0]
    assert [result["everyone"] for result in results] == [6.0] * 4
    # the sequence's group, and DeepSpeed's copy of the world
    assert [result["groups"] for result in results] == [2] * 4


def test_nccl_splits_its_communicator_once_for_all_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[inspect.BoundArguments] = []
    signature = inspect.signature(dist.split_group)

    def split_group(*args: Any, **kwargs: Any) -> Any:
        calls.append(signature.bind(*args, **kwargs))
        return Mock(spec=dist.ProcessGroup)

    monkeypatch.setattr(dist, "split_group", split_group)
    monkeypatch.setattr(dist, "get_backend", lambda: "nccl")
    mesh.split_world(mesh.neighbours(mesh.Mesh(rank=9, world_size=512), 8))
    (call,) = calls
    split = call.arguments["split_ranks"]
    assert len(split) == 64 and split[1] == [8, 9, 10, 11, 12, 13, 14, 15]
    assert sorted(sum(split, [])) == list(range(512))
