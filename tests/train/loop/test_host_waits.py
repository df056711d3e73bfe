"""How often a step makes the host wait for the device: counted in real steps of DeepSpeed's engine.

A wait that a GPU would have and a CPU has not, DeepSpeed's for its own streams, is not counted:
at ZeRO 3 it waits once at the end of each backward pass (stage3.py,
`independent_gradient_partition_epilogue`), which is the one wait that a micro-step may have.
"""

from pathlib import Path

import host_wait_ranks
import pytest
import ranks

PER_STEP = 3
"""The loss with the gradient's norm, the metrics, and the flags of all ranks."""
CHECKPOINTING = "train.memory.activation_checkpointing=true"
OFFLOAD = "train.memory.offload_activations=true"
CASES = [(0, 2), (1, 2, CHECKPOINTING, OFFLOAD), (2, 2), (3, 2, CHECKPOINTING)]
"""ZeRO stage, micro-batches of a step, settings."""


@pytest.fixture(scope="module")
def waits(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, int]]:
    folder = str(tmp_path_factory.mktemp("stop"))
    return ranks.run(1, host_wait_ranks.waits_by_case, CASES, folder)[0]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_step_waits_three_times_and_a_micro_step_not_at_all(
    waits: list[dict[str, int]], number: int
) -> None:
    assert sum(waits[number].values()) <= PER_STEP, (CASES[number], waits[number])


def test_a_number_read_back_in_a_layer_is_counted(tmp_path: Path) -> None:
    (found,) = ranks.run(1, host_wait_ranks.waits_with_a_fault, str(tmp_path))
    places = [place for place in found if "host_wait_ranks.py" in place]
    assert len(places) == 1 and found[places[0]] == 2  # two layers
    assert sum(found.values()) > PER_STEP
