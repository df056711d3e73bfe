"""`python -m ropewalk.launch.check FOLDER`: one rank of a self-test, as the launcher starts it."""

import sys
from pathlib import Path

from ropewalk.conf.errors import RopewalkError
from ropewalk.train.launcher.environment import take_sent
from ropewalk.train.launcher.process import die_with_parent, gc_paused_imports

if __name__ == "__main__":
    die_with_parent()
    try:
        take_sent()
    except RopewalkError as error:
        sys.exit(str(error))
    with gc_paused_imports():
        from ropewalk.launch.check import worker
    worker.run(Path(sys.argv[1]))
