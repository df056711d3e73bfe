"""Traces in a process of their own: what they register with torch cannot be taken back."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from ropewalk.train.trace import plan as plans
from ropewalk.train.trace.plan import StepPlan, StepTrace, TraceError

ENVIRONMENT = {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}


def trace_in_child(plan: StepPlan, timeout_s: float = 600.0) -> StepTrace:
    """Trace `plan` in a child process: the same on machines with and without a GPU.

    Raises: HostWaitError, MixedDevicesError, TraceError.
    """
    (trace,) = traces_in_child([plan], timeout_s)
    if isinstance(trace, TraceError):
        raise trace
    return trace


def traces_in_child(
    traced: Sequence[StepPlan], timeout_s: float = 600.0
) -> list[StepTrace | TraceError]:
    """Trace several plans in one child, which imports torch once.

    A plan whose step is wrong has its error as its result. Where ranks share a row, all plans have
    one `world_size` and `train.sp_size`. Raises: TraceError when the child ends.
    """
    child = subprocess.run(
        [sys.executable, "-m", "ropewalk.train.trace"],
        input=json.dumps([plan.to_json() for plan in traced]),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=os.environ | ENVIRONMENT,
    )
    if child.returncode:
        reason = child.stderr.strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
        raise TraceError(f"the trace ended with {reason[0]}")
    return [_result(answer) for answer in json.loads(child.stdout.splitlines()[-1])]


def _result(answer: dict[str, Any]) -> StepTrace | TraceError:
    if "error" not in answer:
        return StepTrace(**answer)
    error: TraceError = getattr(plans, answer["error"])(answer["message"])
    return error
