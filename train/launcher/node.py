"""DeepSpeed's per-node launcher, except that SIGTERM is left to the ranks.

Where a whole job is ended (Slurm, a container), every process gets SIGTERM. The ranks save a
checkpoint and exit 75; DeepSpeed's launcher would kill them within 30 seconds and exit 1.
"""

import signal
from types import SimpleNamespace

from deepspeed.launcher import launch

from ropewalk.train.launcher.process import die_with_parent


def main() -> None:
    die_with_parent()
    # handlers, since the ranks would inherit an ignored signal
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    launch.signal = SimpleNamespace(
        SIGINT=signal.SIGINT, SIGTERM=signal.SIGTERM, signal=lambda *_: None
    )
    launch.main()


if __name__ == "__main__":
    main()
