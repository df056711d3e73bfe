"""The kept samples of a model: what it was asked, by digest, and what it answered."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.eval.measure.store import ResultStore
from ropewalk.eval.requests import Result

LINES = "samples.jsonl"
Line = dict[str, Any]


@dataclass(frozen=True)
class Samples:
    """The folder `eval/samples/COLUMN` of a run."""

    folder: Path

    @cached_property
    def lines(self) -> Sequence[Line]:
        """A line a sample and task: task, id, unit, request, and the facts of the sample."""
        text = (self.folder / LINES).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    @cached_property
    def _results(self) -> dict[str, Result]:
        return ResultStore(self.folder).results

    def of_tasks(self, tasks: Sequence[str], prefix: str) -> list[Line]:
        """The samples whose id begins with `prefix`, of the first of `tasks` that has some."""
        for task in tasks:
            lines = [x for x in self.lines if x["task"] == task and x["id"].startswith(prefix)]
            if lines:
                return lines
        return []

    def losses(self, line: Line) -> np.ndarray:
        """Of a sample that is a text: (tokens,) float64, nats."""
        return np.asarray(self._results[line["request"]], np.float64)
