"""`python -m ropewalk.train.trace`: plans on standard input, their traces on standard output."""

import json
import sys
from dataclasses import asdict
from typing import Any

from ropewalk.train.launcher.process import gc_paused_imports, without_package
from ropewalk.train.trace.plan import StepPlan, TraceError

with gc_paused_imports(), without_package("mlflow"):
    from ropewalk.train.trace.step import trace_step


def trace_as_json(plan: StepPlan) -> dict[str, Any]:
    """The trace's fields, or `error` and `message`."""
    try:
        return asdict(trace_step(plan))
    except TraceError as error:
        return {"error": type(error).__name__, "message": str(error)}


if __name__ == "__main__":
    traces = [trace_as_json(StepPlan.from_json(values)) for values in json.load(sys.stdin)]
    print(json.dumps(traces))
