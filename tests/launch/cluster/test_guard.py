"""The guard's table: a job's attempts, what is kept now, and whether it goes on."""

import pytest

from ropewalk.launch.cluster.guard import Attempt, Progress, idle_attempts, refusal

NONE = Progress()
DATA = frozenset({"data"})


def at(step: int, *stages: str) -> Progress:
    return Progress(frozenset(stages), step)


@pytest.mark.parametrize(
    ("starts", "now", "limit", "idle"),
    [
        ([], NONE, 1, 0),  # the first attempt
        ([NONE], NONE, 1, 1),  # one attempt that left nothing
        ([NONE], at(0, "data"), 1, 0),  # a finished stage is progress
        ([NONE], at(2), 1, 0),  # a checkpoint is
        ([at(2)], at(2), 1, 1),
        ([at(4)], at(2), 1, 1),  # a checkpoint was lost: no progress
        ([at(2), at(4)], at(6), 1, 0),
        ([at(2), at(2)], at(6), 2, 0),  # an idle attempt before a good one is forgiven
        ([at(2), at(4), at(4)], at(4), 2, 2),
        ([at(2), at(4), at(4)], at(4), 3, 2),
        ([at(9, "data")], at(0, "data", "train"), 1, 0),  # the training ended
        ([at(9, "phases/1-a/data")], at(0, "phases/1-a/data", "phases/1-a/train"), 1, 0),
        ([at(0, "data", "train")], at(0, "data"), 1, 1),  # a stage was lost
    ],
)
def test_a_job_goes_on_while_it_leaves_something_new(
    starts: list[Progress], now: Progress, limit: int, idle: int
) -> None:
    earlier = [Attempt(number, start, 75) for number, start in enumerate(starts, 1)]
    assert len(idle_attempts(earlier, now)) == idle
    assert (refusal(earlier, now, limit) is not None) == (idle >= limit)


@pytest.mark.parametrize(
    ("last", "way_out"),
    [
        (Attempt(1, at(2), 75, trained=9), "trained to step 9 and kept no checkpoint of it: lower"),
        (Attempt(1, at(2), None, trained=2), "ended without a word: read the end of its log"),
        (Attempt(1, at(2), 75, trained=2), r"before its first new step \(exit code 75\): raise"),
    ],
)
def test_a_refusal_says_where_it_stands_and_the_way_out(last: Attempt, way_out: str) -> None:
    import re

    text = refusal([last], at(2), 1) or ""
    assert "attempt 2 would begin where attempt 1 began" in text
    assert "finished stages: none; newest checkpoint: step 2" in text
    assert re.search(way_out, text) and text.endswith("launch.slurm.max_idle_attempts (1)")
