"""The ranks of a self-test, from the command's process: started, heard and ended."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ropewalk.launch.check import beside_plan, planned_step, real_step
from ropewalk.launch.check.checks import CHECKS
from ropewalk.launch.check.line import FAIL, PASS, Line
from ropewalk.launch.check.worker import MARK
from ropewalk.launch.environment import gpus
from ropewalk.launch.pipeline.run import Run
from ropewalk.train.launcher import failure
from ropewalk.train.launcher.command import world_size
from ropewalk.train.launcher.ranks import killed, started

LOG = "ranks.log"


def lines_of_ranks(run: Run, folder: Path, module: str) -> Iterator[Line]:
    """Start the ranks and pass on what the first of them sends, until they end."""
    done: set[str] = set()
    current, log = "start of the ranks", []
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    piped |= {"text": True, "errors": "replace"}
    with started(run.config, folder, folder, module, **piped) as ranks:
        try:
            assert ranks.process.stdout is not None
            for text in ranks.process.stdout:
                before, mark, content = text.partition(MARK.strip())
                if not mark:
                    log.append(text)
                    continue
                message: dict[str, Any] = json.loads(content)
                if "started" in message:
                    current = message["started"]
                    done.add(current)
                elif "name" in message:
                    yield Line(**message)
            code = ranks.wait()
        finally:
            kept = _keep(folder / LOG, log)
    if code:
        yield _ended(folder, current, code, log, kept)
    yield from left_out(done, f"the ranks ended during {current}")


def _keep(path: Path, log: list[str]) -> str:
    """Write what the ranks said; where it is."""
    try:
        path.write_text("".join(log))
    except OSError as error:
        return f"the ranks' messages could not be kept ({error.strerror})"
    return f"the ranks' messages are in {path}"


def _ended(folder: Path, current: str, code: int, log: list[str], kept: str) -> Line:
    """The line of the check in which a rank failed: by its note, else by its last words."""
    note = failure.read(folder)
    words = [text.strip() for text in log if text.startswith("rank ")]
    reason = failure.text(note) if note else [killed(code, "check"), *words][-1]
    return Line(current, FAIL, reason, "", kept)


def left_out(done: set[str], reason: str) -> Iterator[Line]:
    yield from (Line.skipped(one.name, reason) for one in CHECKS if one.name not in done)


def with_planned_step(run: Run, folder: Path, module: str) -> Iterator[Line]:
    """The same, and the real step beside its plan, which a child makes meanwhile. What corrects
    other plans of this machine is kept."""
    count, gpu = world_size(run.config), first_gpu() if torch.cuda.is_available() else ""
    with planned_step.Child(folder / real_step.FOLDER, count, gpu) as child:
        for line in lines_of_ranks(run, folder, module):
            yield line
            if line.name == real_step.NAME and line.status == PASS:
                measured, forecast = real_step.measured(folder), child.forecast()
                beside_plan.correct(run.frozen, measured, forecast, count)
                yield from beside_plan.lines(measured, forecast)


def first_gpu() -> str:
    """As the driver names it; this process must not open it."""
    seen = gpus.visible(gpus.listed().gpus, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return seen[0].name if seen else ""
