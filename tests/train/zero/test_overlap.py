"""Reductions beside the backward pass at ZeRO 1 and 2: who waits for whom, without a GPU."""

import overlap_ranks
import pytest
import ranks

WAIT = ("wait", "compute", "reduce")


@pytest.mark.parametrize("stage", [1, 2])
def test_the_device_waits_for_the_reductions_and_the_host_does_not(stage: int) -> None:
    logs = ranks.run(2, overlap_ranks.backward_logs, stage, 2, False)[0]
    *earlier, last = logs
    # ZeRO 1 reduces at the end of a step, ZeRO 2 in each micro-batch
    assert all(("reduce", "reduce") in log for log in earlier) == (stage == 2)
    assert last.count(("reduce", "reduce")) > 2
    for log in logs:
        assert ("host waits",) not in log and ("reduce", "compute") not in log
    for log in filter(lambda log: ("reduce", "reduce") in log, logs):
        reductions = [index for index, entry in enumerate(log) if entry == ("reduce", "reduce")]
        # two buffers: before one is filled again, its reduction is waited for
        for first, second in zip(reductions, reductions[1:], strict=False):
            assert WAIT in log[first:second]
        # the reduction reads what was computed, and the step what was reduced
        assert ("wait", "reduce", "compute") in log[: reductions[0]]
        assert WAIT in log[reductions[-1] :]


def test_deepspeed_by_itself_waits_on_the_host() -> None:
    (log,) = ranks.run(2, overlap_ranks.backward_logs, 2, 1, True)[0]
    assert ("host waits",) in log
