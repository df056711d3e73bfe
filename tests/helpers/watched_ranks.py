"""Programs of a rank in test_watchdog.py: one rank dies or stops, the others wait as in NCCL, which
notices nothing."""

import os
import signal
import sys
import time
from pathlib import Path

import ranks
import torch.distributed as dist

from ropewalk.conf.errors import ConfigError, RopewalkError
from ropewalk.train.launcher import failure
from ropewalk.train.loop.progress import Heartbeat
from ropewalk.train.loop.watchdog import Watchdog, phase

PHASES = ("loading the model", "training", "exporting the model")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def refuse() -> None:
    raise ConfigError("train.x is 1; it must be 2; set 2")


def lose_peer() -> None:
    raise RuntimeError("Connection closed by peer [127.0.0.1]:1")


def wait() -> None:
    time.sleep(600)


def run(folder: Path, where: str, acts: dict[int, str], timeout_s: float = 1800.0) -> None:
    """Through all phases; in `where` each rank does what `acts` says, or waits."""
    sys.stderr = (folder / f"stderr-{dist.get_rank()}").open("w", buffering=1)
    action = globals()[acts.get(dist.get_rank(), "wait")]
    try:
        with Watchdog(folder, ranks.store, timeout_s):
            for name in PHASES:
                heartbeat = (lambda: Heartbeat(6, 2, "forward")) if name == "training" else None
                with phase(name, heartbeat=heartbeat):
                    time.sleep(0.2)
                    if name == where:
                        action()
            dist.barrier()
    except Exception as error:
        code = failure.report(error, folder)
        sys.stderr.flush()
        os._exit(code)


def run_long(folder: Path, extra_s: float) -> float:
    """A phase of three seconds, under a timeout of one, with so many more for the phase."""
    started = time.monotonic()
    with Watchdog(folder, ranks.store, 1.0), phase("loading the model", extra_s):
        time.sleep(3)
    return time.monotonic() - started


def raises(error: type[RopewalkError]) -> None:
    raise error("x")
