"""Traces of one process, each made once."""

import json
from dataclasses import asdict

from ropewalk.train.trace.layers import Subject
from ropewalk.train.trace.plan import StepTrace
from ropewalk.train.trace.step import trace_step

_traces: dict[str, StepTrace] = {}


def of(subject: Subject) -> StepTrace:
    """The trace of a subject's step. Raises: as `trace_step`."""
    key = _key(subject)
    if key not in _traces:
        _traces[key] = trace_step(subject.plan)
    return _traces[key]


def _key(subject: Subject) -> str:
    """What a trace depends on: of memory sizes and of `keep_attention` only what is kept then."""
    train = asdict(subject.train)
    train["memory"]["keep_attention"] = sorted(subject.kept_ops)
    values = {"train": train, "device_bytes": 0, "host_bytes": 0}
    return json.dumps(subject.plan.to_json() | values, sort_keys=True, default=str)
