"""Three answers, and rates by payload."""

import pytest

from ropewalk.conf import hardware_file
from ropewalk.launch.plan.seconds import rate_gb_s
from ropewalk.launch.plan.verdict import verdict, worst

MIB = 2**20


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


def test_a_rate_lies_on_the_measured_curve() -> None:
    """8 x H100: 220 GB/s at 16 MiB and 368 at 16 GiB; between them a line in logarithms."""
    link = hardware_file.load("h100").link
    assert rate_gb_s(link, 1 * MIB) == rate_gb_s(link, 16 * MIB) == pytest.approx(220)
    assert rate_gb_s(link, 16384 * MIB) == pytest.approx(368)
    assert rate_gb_s(link, 512 * MIB) == pytest.approx((220 * 368) ** 0.5)


def test_no_rate_is_above_the_data_sheet() -> None:
    """The bus bandwidth of a hierarchical all-reduce is above what a GPU's own port sends."""
    network = hardware_file.load("b200").network
    assert rate_gb_s(network, 16384 * MIB) == network.gb_s.value
    assert rate_gb_s(hardware_file.load("h100").network, MIB) == 50
