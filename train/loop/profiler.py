"""A window of steps under torch's profiler, for chrome://tracing or Perfetto.

Only here can communication be separated from the work that it overlaps with: each collective is a
record of its own in the trace.
"""

import gzip
import re
import tempfile
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.train.zero.mesh import Mesh

PERSONAL = re.compile(rb'"host_name": ".*",|,\s*"traceName": ".*"')


class Profiler:
    """Writes `profile/rank-R.steps-A-B.json.gz`, and a GPU's allocations as `.memory.pickle`."""

    def __init__(self, config: Config, folder: Path, mesh: Mesh) -> None:
        """Raises: ConfigError when allocations are to be recorded and there is no CUDA device."""
        settings = config.train.profiler
        self.first, self.last = settings.steps or (0, -1)
        self.enabled = bool(settings.steps) and (settings.ranks == "all" or mesh.rank == 0)
        self.memory, self.rank, self.folder = settings.memory, mesh.rank, folder / "profile"
        self.profile: profile | None = None
        self.first_recorded = 0
        self.last_step = 0
        if self.memory and not torch.cuda.is_available():
            raise ConfigError(
                "train.profiler.memory is True; it records the allocations of a CUDA device, and "
                "there is none; set it to false"
            )

    def start_step(self, step: int) -> None:
        """Before step `step` (from 1).

        A run resumed inside the window records its remaining steps.
        """
        if not self.enabled or self.profile or not self.first <= step <= self.last:
            return
        self.first_recorded = step
        if self.memory:
            # stacks would name the user's folders
            torch.cuda.memory._record_memory_history(context=None)
        devices = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
        self.profile = profile(activities=[ProfilerActivity.CPU, *devices])
        self.profile.start()

    def end_step(self, step: int) -> None:
        """After step `step`."""
        self.last_step = step
        if step >= self.last:
            self.close()

    def close(self) -> None:
        """Write the steps recorded so far, if any: the window or the training has ended."""
        if self.profile is None:
            return
        self.profile.stop()
        self.folder.mkdir(exist_ok=True)
        name = f"rank-{self.rank}.steps-{self.first_recorded}-{self.last_step}"
        _write_trace(self.profile, self.folder / f"{name}.json.gz")
        if self.memory:
            torch.cuda.memory._dump_snapshot(str(self.folder / f"{name}.memory.pickle"))
            torch.cuda.memory._record_memory_history(enabled=None)
        self.enabled, self.profile = False, None


def _write_trace(recorded: profile, target: Path) -> None:
    """The compressed trace, without the names of the machine and of the profiler's own file."""
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(trace))
        with trace.open("rb") as lines, gzip.open(target, "wb", compresslevel=5) as file:
            file.writelines(PERSONAL.sub(b"", line) for line in lines)
