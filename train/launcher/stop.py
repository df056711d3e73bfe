"""The request to stop in good order, by a signal or a file."""

import signal
from pathlib import Path

import torch.distributed as dist

from ropewalk.conf.errors import Stopped
from ropewalk.train.launcher.ranks import STOP_FILE
from ropewalk.train.zero.mesh import any_rank


def stop_if_requested(folder: Path, moment: str) -> None:
    """For ranks that have trained no step yet: there is nothing to save. Collective.

    Raises: Stopped on all ranks, when rank 0 sees the stop file.
    """
    if any_rank(_is_there(folder / STOP_FILE))[0]:
        raise Stopped(f"stopped before {moment}; run the same command again")


class StopSignal:
    """SIGTERM, SIGINT, SIGHUP, SIGUSR1 (Slurm's --signal=USR1@SECONDS) or the stop file.

    It is noticed between steps, by all ranks in the same one.
    """

    def __init__(self, folder: Path) -> None:
        self.file, self.requested = folder / STOP_FILE, False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, self._request)

    def _request(self, *_: object) -> None:
        self.requested = True

    def __call__(self, *flags: bool) -> list[bool]:
        """Collective, one exchange a step. Whether any rank must stop, and has each of `flags`."""
        return any_rank(self.requested or _is_there(self.file), *flags)


def _is_there(file: Path) -> bool:
    """Rank 0 looks, for all: one question a step to a shared disk, however many ranks there are."""
    return dist.get_rank() == 0 and file.exists()
