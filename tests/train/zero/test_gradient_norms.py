"""Norms of gradients by group: right before a copy to host memory is done, and without reads."""

from collections import defaultdict
from math import sqrt
from typing import Any

import gradient_norms_ranks
import memory_runs
import pytest
import ranks

from ropewalk.train.optim.param_groups import group_of

ACCUMULATED = 2


def test_norms_do_not_depend_on_copies_to_host_memory_nor_read_parameters_one_by_one() -> None:
    """NVMe would be read once a parameter. The oracle is torch's autograd alone."""
    squares: dict[str, float] = defaultdict(float)
    for name, gradient in ranks.run(1, memory_runs.gradient_sums, ACCUMULATED)[0].items():
        squares[group_of(name)] += float((gradient**2).sum())
    expected = {group: sqrt(value) for group, value in squares.items()}
    cases: list[dict[str, Any]] = [
        {"zero_stage": stage, "memory__offload_optimizer": offload}
        for stage in (1, 2, 3)
        for offload in (False, True)
    ]
    results = ranks.run(1, gradient_norms_ranks.norms_of, cases, ACCUMULATED)[0]
    for case, result in zip(cases, results, strict=True):
        assert result["norms"] == pytest.approx(expected, rel=1e-5), case
        assert result["reads"] == 0, case


@pytest.mark.parametrize("stage", [1, 3])
def test_the_engine_does_not_wait_for_the_device_to_measure_itself(stage: int) -> None:
    """DeepSpeed's throughput timer would, from its third step on, twice a micro-batch."""
    assert ranks.run(1, gradient_norms_ranks.device_waits, stage, 5)[0] == 0
