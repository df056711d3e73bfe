"""`python -m ropewalk.train.launcher.node ...`: DeepSpeed's launcher of one machine's ranks, but for a stop, which is asked of them and not done to them.

Where a whole job is told to end (Slurm, a container), SIGTERM comes to every process. The ranks save and leave with the code that
requeues; DeepSpeed's launcher would kill them within 30 seconds and leave with 1.
"""

import signal
from types import SimpleNamespace

from deepspeed.launcher import launch

from ropewalk.train.launcher.process import die_with_parent

ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> None:
    die_with_parent()
    for number in ASKING:  # not ignored, which the ranks would inherit
        signal.signal(number, lambda *_: None)
    launch.signal = SimpleNamespace(
        SIGINT=signal.SIGINT, SIGTERM=signal.SIGTERM, signal=lambda *_: None
    )
    launch.main()


if __name__ == "__main__":
    main()
