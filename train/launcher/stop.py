"""The request to stop in good order, by a signal or a file."""

import signal
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ropewalk.train.launcher.ranks import STOP_FILE
from ropewalk.train.zero.mesh import device


class StopSignal:
    """SIGTERM, SIGINT, SIGHUP, SIGUSR1 (Slurm's --signal=USR1@SECONDS) or the stop file.

    It is noticed between steps, by all ranks in the same one.
    """

    def __init__(self, folder: Path) -> None:
        self.file, self.requested = folder / STOP_FILE, False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, self._request)

    def _request(self, *_: Any) -> None:
        self.requested = True

    def __call__(self, *flags: float) -> list[bool]:
        """Collective, one exchange a step. Whether any rank must stop, and has each of `flags`."""
        is_stopping = self.requested or self.file.exists()
        local = torch.tensor([float(is_stopping), *flags], device=device())
        dist.all_reduce(local, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in local.tolist()]
