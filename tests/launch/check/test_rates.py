"""Rates beside those of other ranks and of the hardware file."""

import pytest

from ropewalk.conf import hardware_file
from ropewalk.launch.check import collectives, speed
from ropewalk.launch.check.line import FAIL, PASS, SKIP
from ropewalk.launch.check.rates import Rates, judged
from ropewalk.launch.check.together import Ranks
from ropewalk.train.cost.traffic import Collective

H100 = hardware_file.load("h100")
"""794 TFLOP/s; 55 GB/s to the host; its links 220 GB/s at 16 MiB, 368 at 16 GiB; 50 outside."""
MIB = 2**20


def test_a_straggler_is_named() -> None:
    line = judged(Rates("matrix product", [700, 710, 450, 705], "TFLOP/s", 0.93, "look", 794))
    assert line.status == FAIL and line.way_out == "look"
    assert line.value == (
        "705.0 TFLOP/s a rank, 450.0 to 710.0, 57% of the hardware file's 794; rank 2 has 64% of "
        "the median"
    )


@pytest.mark.parametrize(("rate", "status"), [(700.0, PASS), (318.0, PASS), (317.0, FAIL)])
def test_all_ranks_far_below_the_hardware_file(rate: float, status: str) -> None:
    """40% of 794 are 317.6."""
    of_file = H100.matmul_tflops.value
    assert judged(Rates("x", [rate] * 4, "TFLOP/s", 0.93, "", of_file)).status == status
    assert judged(Rates("x", [rate] * 4, "TFLOP/s", 0.93, "")).status == PASS


@pytest.mark.parametrize(
    ("ranks", "mib", "expected"),
    [(8, 16, 220.0), (8, 16384, 368.0), (16, 16384, 50.0), (8, 15, None)],
)
def test_the_rate_of_a_collective(ranks: int, mib: int, expected: float | None) -> None:
    one = Collective("all_gather", "parameters", 1, mib * MIB, ranks)
    assert collectives.rate_of_file(one, H100) == expected
    assert collectives.rate_of_file(one, None) is None


def test_a_collective_beside_the_hardware_file() -> None:
    one = Collective("all_gather", "parameters", 1, 512 * MIB, 16)
    good = collectives.judged(one, 40.0, "", H100, "nccl, 512.0 MiB")
    assert good.status == PASS
    assert good.value == (
        "40.00 GB/s sent a rank, nccl, 512.0 MiB over 16 ranks, 80% of the hardware file's 50"
    )
    assert collectives.judged(one, 19.0, "", H100, "nccl").status == FAIL
    assert collectives.judged(one, 19.0, "", None, "nccl").status == PASS
    wrong = collectives.judged(one, 40.0, "rank 3 got other values", H100, "nccl")
    assert wrong.status == FAIL and wrong.value.startswith("rank 3 got other values")


def test_a_cpu_has_no_link_to_a_device() -> None:
    line = speed.host_link_line(Ranks(), None)
    assert line.status == SKIP and "no CUDA device" in line.value
