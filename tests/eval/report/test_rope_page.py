"""The rope section: the table of dimensions."""

import pytest
from report_run import rope

from ropewalk.eval.report.figures.rope import dimensions


def test_shares_and_rotations_of_the_rope_table():
    rows = dimensions(rope())
    assert [round(row["share"], 9) for row in rows] == [0.0] * 4 + [0.2, 0.4, 0.6, 0.8] + [1.0] * 8
    assert rows[0]["before"] == pytest.approx(6.283185)
    assert rows[0]["rotations"] == pytest.approx(40.743665)
    assert rows[-1]["after"] == pytest.approx(8 * rows[-1]["before"])
    assert all(row["share"] is None for row in dimensions(rope() | {"factor": 1.0}))
