"""What one rank of 8, 64 and 512 does at the start and in a step: groups, collectives, bytes, host
seconds. The other ranks are not there (torch's fake backend)."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[2] / "helpers" / "fake_world.py"
MICRO_STEPS = 2
HOST_S = 30.0  # generous, for a loaded machine


@cache
def counts(world_size: int, sp_size: int, zero_stage: int) -> dict[str, Any]:
    arguments = map(str, (world_size, sp_size, zero_stage))
    result = subprocess.run(
        [sys.executable, PROGRAM, *arguments], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def padded(elements: int, world_size: int) -> tuple[int, int]:
    """At least and at most so many, once parameters are padded to equal parts."""
    return elements, elements + 20 * 4 * world_size  # 20 parameters


def assert_few_groups_and_hand_counted_bytes(world_size: int, zero_stage: int) -> None:
    result = counts(world_size, 2, zero_stage)
    # the sequence's and DeepSpeed's copy of the world; its own way makes one a sequence
    assert result["groups"] == 2
    assert result["meeting_s"] < HOST_S and result["step_s"] < HOST_S
    bytes_of, calls = result["step"]["bytes"], result["step"]["calls"]
    least, most = padded(4 * MICRO_STEPS * result["parameters"], world_size)
    if zero_stage == 3:  # its argument and its result are counted
        share = 1 + 1 / world_size
        assert least * share <= bytes_of["reduce_scatter_base"] <= most * share * 2
    else:  # beside the gradients, some scalars
        assert least <= bytes_of["allreduce"] <= least + 64
    # q, k, v and the output of two layers, forward and backward
    assert calls["dim_zero_all_to_all"] == MICRO_STEPS * 2 * 4 * 2


def test_a_rank_of_eight_makes_two_groups_and_reduces_each_gradient_once_a_micro_step() -> None:
    assert_few_groups_and_hand_counted_bytes(8, 2)


@pytest.mark.slow
@pytest.mark.parametrize("zero_stage", [2, 3])
@pytest.mark.parametrize("world_size", [64, 512])
def test_more_ranks_make_no_more_groups_and_no_more_collectives(
    world_size: int, zero_stage: int
) -> None:
    assert_few_groups_and_hand_counted_bytes(world_size, zero_stage)
    eight, many = counts(8, 2, zero_stage), counts(world_size, 2, zero_stage)
    assert many["building"]["calls"] == eight["building"]["calls"]
    assert many["step"]["calls"] == eight["step"]["calls"]


def test_a_communicator_for_each_group_of_the_world_is_noticed() -> None:
    """DeepSpeed's own way, as a fault: 33 calls of a rank of 64, where two are enough."""
    fault = (
        "import sys; sys.path.insert(0, sys.argv[1]); import fake_world\n"
        "fake_world.join(64); groups = fake_world.count_groups()\n"
        "from deepspeed.runtime.sequence_parallel import parallel_state_sp\n"
        "parallel_state_sp.initialize_sequence_parallel(2); print(len(groups))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", fault, str(PROGRAM.parent)], capture_output=True, text=True
    )
    assert result.stdout.splitlines()[-1:] == ["33"], result.stderr
