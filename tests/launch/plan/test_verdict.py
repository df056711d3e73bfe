"""Three answers."""

import pytest

from ropewalk.launch.plan.verdict import verdict, worst


@pytest.mark.parametrize(
    ("allocated", "reserved", "answer"),
    [
        (50, 72, "fits"),
        (50, 73, "too_close"),
        (79, 90, "too_close"),
        (80, 200, "too_close"),
        (81, 81, "does_not_fit"),
    ],
)
def test_of_eighty(allocated: int, reserved: int, answer: str) -> None:
    """72 x 1.1 = 79.2."""
    assert verdict(allocated, reserved, 80) == answer


def test_the_worst_of_several_counts() -> None:
    assert worst(["fits", "too_close"]) == "too_close"
    assert worst(["does_not_fit", "too_close", "fits"]) == "does_not_fit"
