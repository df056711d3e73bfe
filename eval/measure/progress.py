"""How far an evaluation is: a bar with the time left over all columns, or plain lines."""

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from tqdm import tqdm

from ropewalk.conf.log import log
from ropewalk.eval.measure.cost import ColumnCost
from ropewalk.eval.requests import Request

LINE_S = 15.0
"""Seconds between two lines, at the least."""
BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"


class Progress:
    """Counts estimated seconds, so that a column's long prompts weigh as much as they take.

    `costs`: of every column; empty on the ranks that show nothing.
    """

    def __init__(
        self, costs: Sequence[ColumnCost], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.costs, self.clock = {cost.label: cost for cost in costs}, clock
        self.total = sum(cost.seconds for cost in costs)
        self.done, self.start, self.last_line = 0.0, clock(), clock()
        shown = sys.stderr.isatty() and self.total > 0
        self.bar = (
            tqdm(total=self.total, bar_format=BAR, smoothing=0, leave=False) if shown else None
        )

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def begin(self, label: str) -> float:
        """The time at which a column begins; its bar has its name."""
        if self.bar is not None:
            self.bar.set_description(label)
        return self.clock()

    def advance(self, label: str, requests: Sequence[Request]) -> None:
        """Requests of a column are measured."""
        if label not in self.costs:
            return
        step = self.costs[label].seconds_of(requests)
        self.done += step
        if self.bar is not None:
            self.bar.update(min(step, self.total - self.bar.n))
        elif self.clock() - self.last_line >= LINE_S:
            self.last_line = self.clock()
            log.info(f"eval: {label}, {self._line()}")

    def end(self, label: str, start: float) -> None:
        """A column is measured; `start` is what `begin` gave."""
        if label in self.costs:
            self.costs[label].took = self.clock() - start
            log.info(f"eval: {label} measured")

    def _line(self) -> str:
        share = min(1.0, self.done / self.total)
        left = (self.clock() - self.start) * (1 - share) / share
        return f"{share:.0%} of all columns, {left:.0f} s left"
