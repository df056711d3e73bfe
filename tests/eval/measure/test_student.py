"""Student's t against scipy."""

import pytest

from ropewalk.eval.measure import student

scipy_stats = pytest.importorskip("scipy.stats")


@pytest.mark.parametrize("df", [1, 2, 3, 7, 8, 31, 127, 500, 1999])
def test_p_and_half_width_are_scipys(df: int) -> None:
    for t in (0.0, 0.1, -1.0, 2.0, 3.5):
        expected = 2 * scipy_stats.t.sf(abs(t), df)
        assert student.two_sided_p(t, df) == pytest.approx(expected, rel=1e-9, abs=1e-13)
    assert student.half_width(df) == pytest.approx(scipy_stats.t.ppf(0.975, df), rel=1e-9)
    assert student.half_width(df, 0.8) == pytest.approx(scipy_stats.t.ppf(0.9, df), rel=1e-9)


def test_many_degrees_of_freedom_are_nearly_normal() -> None:
    assert student.half_width(5000) == pytest.approx(scipy_stats.t.ppf(0.975, 5000), rel=1e-3)
