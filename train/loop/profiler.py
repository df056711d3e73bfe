"""A window of steps under torch's profiler: which kernels, which collectives, when. For chrome://tracing or Perfetto.

This is where communication can be told from the work that it overlaps with: each collective is a record of its own in the trace.
"""

import gzip
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.train.zero.mesh import Mesh

PERSONAL = re.compile(rb'"host_name": ".*",|,\s*"traceName": ".*"')


class Profiler:
    """Writes `train/profile/rank-R.steps-A-B.json.gz` (and `.memory.pickle` of a GPU's allocations) when the window is over."""

    def __init__(self, config: Config, folder: Path, mesh: Mesh) -> None:
        """Raises: ConfigError when the allocations of a device are asked for and there is none."""
        asked = config.train.profiler
        self.first, self.last = asked.steps or (0, -1)
        self.on = bool(asked.steps) and (asked.ranks == "all" or mesh.rank == 0)
        self.memory, self.rank, self.folder = asked.memory, mesh.rank, folder / "profile"
        self.running: Any = None
        self.done = 0
        if self.memory and not torch.cuda.is_available():
            raise ConfigError(
                "train.profiler.memory is True; it records the allocations of a CUDA device, and there is none; set it to false"
            )

    def before(self, step: int) -> None:
        """Step `step` (from 1) begins; a run that was resumed inside the window records what is left of it."""
        if not self.on or self.running or not self.first <= step <= self.last:
            return
        self.begun = step
        if self.memory:
            torch.cuda.memory._record_memory_history(
                context=None
            )  # no stacks: they name the user's folders
        devices = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        self.running = profile(activities=[ProfilerActivity.CPU, *devices])
        self.running.start()

    def after(self, step: int) -> None:
        """Step `step` is over."""
        self.done = step
        if self.running is not None and step >= self.last:
            self._end()

    def close(self) -> None:
        """The training ends inside the window: what there is of it is written."""
        if self.running is not None:
            self._end()

    def _end(self) -> None:
        self.running.stop()
        self.folder.mkdir(exist_ok=True)
        name = self.folder / f"rank-{self.rank}.steps-{self.begun}-{self.done}"
        with tempfile.TemporaryDirectory() as place:
            _write(self.running, Path(place) / "trace.json", name.with_name(f"{name.name}.json.gz"))
        if self.memory:
            torch.cuda.memory._dump_snapshot(str(name.with_name(f"{name.name}.memory.pickle")))
            torch.cuda.memory._record_memory_history(enabled=None)
        self.on, self.running = False, None


def _write(done: profile, plain: Path, target: Path) -> None:
    """The trace, packed, without the names of the machine and of the file that the profiler wrote."""
    done.export_chrome_trace(str(plain))
    with plain.open("rb") as lines, gzip.open(target, "wb", compresslevel=5) as packed:
        packed.writelines(PERSONAL.sub(b"", line) for line in lines)
