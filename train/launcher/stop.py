""""""

import signal
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ropewalk.train.zero.device import device

STOP = "stop"  # launch asks for a stop in good order by this file


class StopSignal:
    """SIGTERM, SIGINT, SIGHUP, SIGUSR1 (Slurm's --signal=USR1@SECONDS) or the stop file: noticed between steps, by all ranks in the same one."""

    def __init__(self, folder: Path) -> None:
        self.file, self.asked = folder / STOP, False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, self._ask)

    def _ask(self, *_: Any) -> None:
        self.asked = True

    def __call__(self, *flags: float) -> list[bool]:
        """Whether a stop is asked of any rank, and whether any has each of `flags`: one small exchange a step."""
        mine = torch.tensor([float(self.asked or self.file.exists()), *flags], device=device())
        dist.all_reduce(mine, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in mine.tolist()]
