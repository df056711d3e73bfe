"""DeepSpeed's per-node launcher, except that SIGTERM is left to the ranks.

Where a whole job is ended (Slurm, a container), every process gets SIGTERM. The ranks save a
checkpoint and exit 75; DeepSpeed's launcher would kill them within 30 seconds and exit 1.
Its line about the command that it ends is left out: ranks.py reports the exit code once.
"""

import logging
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
    launch.set_log_level_from_string = lambda _: launch.logger.setLevel(logging.CRITICAL)
    launch.main()


if __name__ == "__main__":
    main()
