"""`python -m check_dies FOLDER`: a rank of `ropewalk check`; the second one fails in a check."""

import os
import sys
from pathlib import Path

from ropewalk.launch.check import checks, worker
from ropewalk.launch.check.line import Line


def fail(rank: checks.Rank) -> list[Line]:
    rank.ranks.barrier()
    if os.environ["RANK"] == "1":
        raise RuntimeError("an error that only this rank has")
    rank.ranks.barrier()
    return []


if __name__ == "__main__":
    kept = [one for one in checks.CHECKS if one.name in ("hosts", "shared folder")]
    worker.CHECKS = (kept[0], checks.Check("speed", fail), kept[1])
    worker.run(Path(sys.argv[1]))
