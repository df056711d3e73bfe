"""`python -m check_dies FOLDER`: a rank of `ropewalk check`; the second one fails in a check, or is
killed there if KILLED_AT names a file, into which it writes the time of day before."""

import os
import signal
import sys
import time
from pathlib import Path

from ropewalk.launch.check import checks, worker
from ropewalk.launch.check.line import Line


def fail(rank: checks.Rank) -> list[Line]:
    rank.ranks.barrier()
    if os.environ["RANK"] == "1" and "KILLED_AT" in os.environ:
        Path(os.environ["KILLED_AT"]).write_text(str(time.time()))
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ["RANK"] == "1":
        raise RuntimeError("an error that only this rank has")
    rank.ranks.barrier()
    return []


if __name__ == "__main__":
    kept = [one for one in checks.CHECKS if one.name in ("hosts", "shared folder")]
    worker.CHECKS = (kept[0], checks.Check("speed", fail), kept[1])
    worker.run(Path(sys.argv[1]))
