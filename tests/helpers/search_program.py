"""A search whose trials are not trained: `python search_program.py RUNS_DIR KILLED_AT WORD ...`.

The loss of a trial is a parabola of its learning rate. The process is killed when trial KILLED_AT
is at work; -1: never.
"""

import json
import math
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ropewalk.launch.sweep import before, chosen, search
from ropewalk.launch.sweep.jobs import Job, Outcome

FAILING, STEPS = 1, 40
BASE = [
    "recipe=demo",
    f"train.steps={STEPS}",
    "sweep=search",
    "sweep.search.objective=metrics.loss",
]


def loss(words: Sequence[str]) -> float:
    values = dict(word.split("=", 1) for word in words)
    bonus = {"yarn": 0.0, "pi": 0.5}[values["rope"]]
    return (math.log10(float(values["train.optimizer.lr"])) + 3.5) ** 2 + bonus


class ParabolaPool:
    """Writes what a training would; trial `FAILING` fails."""

    def __init__(self, runs_dir: Path, killed_at: int) -> None:
        self.runs_dir, self.killed_at = runs_dir, killed_at

    def run(self, jobs: Sequence[Job]) -> Iterator[Outcome]:
        for job in jobs:
            number = int(job.name.rpartition("-")[2]) if job.verb == "train" else -2
            if number == self.killed_at:
                os.kill(os.getpid(), signal.SIGKILL)
            if job.verb == "train" and number != FAILING:
                folder = self.runs_dir / job.name / "train"
                folder.mkdir(parents=True, exist_ok=True)
                line = {"step": STEPS, "loss": loss(job.overrides)}
                (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
            yield Outcome(job, 1 if number == FAILING else 0, 60.0)


def run(runs_dir: Path, killed_at: int, *words: str) -> None:
    """The caller has replaced the pool and the preflight, or is a process of its own."""
    searched = ["rope=yarn,pi", "train.optimizer.lr=log(1e-5,1e-2)", f"runs_dir={runs_dir}"]
    before.preflight = lambda *_: None  # type: ignore[assignment]
    search.pool_of = lambda *_: ParabolaPool(runs_dir, killed_at)  # type: ignore[assignment]
    search.run(chosen.choose([*BASE, *searched, *words]), "train", words)


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
