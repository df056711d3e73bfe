"""What is wrong with a traced step, in lines: found without a GPU, before one is paid for."""

from collections.abc import Iterator

from ropewalk.train.trace.plan import StepTrace

USUAL_WAITS = 1
"""The step's own reading of its loss and norm."""


def findings(trace: StepTrace, micro_batches: int = 1) -> list[str]:
    """A line each. Mixed devices and waits inside a pass end a trace with an error before."""
    return list(_findings(trace, micro_batches))


def _findings(trace: StepTrace, micro_batches: int) -> Iterator[str]:
    if sum(trace.waits.values()) > USUAL_WAITS:
        for place, times in trace.waits.items():
            yield f"the host waits {times} times a step: {place}"
    for place, times in trace.large.items():
        yield f"a tensor of S x S or S x V elements, {times} times a step: {place}"
    # the first weight of each micro-batch has nothing before it
    if trace.gathers.get("on demand", 0) > micro_batches:
        yield (
            f"ZeRO 3 gathers weights {trace.gathers['on demand']} times a step when they are "
            f"needed at once, and {trace.gathers.get('ahead', 0)} times ahead"
        )
