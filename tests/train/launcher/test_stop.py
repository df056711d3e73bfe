"""A request to stop before the first step ends all ranks without one; Ctrl-C waits for no model."""

from pathlib import Path

import pytest
import ranks
import stop_ranks

WAY_OUT = "; run the same command again"


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("start", ["start", f"stopped before the model was loaded{WAY_OUT}"]),
        ("assemble", ["start", "assemble", f"stopped before step 3{WAY_OUT}"]),
        ("nothing left", ["start", "assemble", "train", "save"]),
        ("never", ["start", "assemble", "train", "save"]),
    ],
)
def test_all_ranks_end_when_one_sees_the_request(
    tmp_path: Path, moment: str, expected: list[str]
) -> None:
    assert ranks.run(2, stop_ranks.train, tmp_path, moment, timeout_s=120) == [expected, expected]


def test_one_rank_looks_for_the_request_once_a_step(tmp_path: Path) -> None:
    """A file on a shared disk; every rank of a thousand asked it after every step."""
    assert ranks.run(2, stop_ranks.looks, tmp_path, 5) == [5, 0]
