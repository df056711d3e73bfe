"""Whether measured rates hold: the ranks beside one another, and beside the hardware file."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ropewalk.launch.check.line import Line

LEAST_OF_FILE = 0.4
"""Below it something is broken: a link at a lower width, a GPU at a lower clock, sockets in place
of RDMA. The file's figures are the best that somebody measured, or a data sheet's."""


@dataclass(frozen=True)
class Rates:
    """Of every rank, in `unit`."""

    name: str
    of_ranks: Sequence[float]
    unit: str
    least_of_median: float
    way_out: str
    of_file: float | None = None
    """The hardware file's; None where it has none for this device or size."""


def judged(rates: Rates) -> Line:
    """Every rank is named that is slower than its share of the median, or of the file's."""
    median = statistics.median_high(rates.of_ranks)
    slow = [
        f"; rank {rank} has {rate / median:.0%} of the median"
        for rank, rate in enumerate(rates.of_ranks)
        if rate < rates.least_of_median * median
    ]
    bars = [f"every rank at least {rates.least_of_median:.0%} of the median"]
    beside = ""
    if rates.of_file is not None:
        beside = f", {min(rates.of_ranks) / rates.of_file:.0%} of the hardware file's "
        beside += f"{rates.of_file:,.0f}"
        bars.append(f"{LEAST_OF_FILE:.0%} of the hardware file's")
    low, high = min(rates.of_ranks), max(rates.of_ranks)
    return Line.judged(
        rates.name,
        not slow and low >= LEAST_OF_FILE * (rates.of_file or 0.0),
        f"{median:.1f} {rates.unit} a rank, {low:.1f} to {high:.1f}{beside}{''.join(slow)}",
        " and ".join(bars),
        rates.way_out,
    )
