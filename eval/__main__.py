"""`python -m ropewalk.eval FOLDER`: one rank, as the launcher starts it."""

import sys
from pathlib import Path

from ropewalk.train.launcher.process import die_with_parent, gc_paused_imports

if __name__ == "__main__":
    die_with_parent()
    with gc_paused_imports():
        from ropewalk.eval import worker
    worker.run(Path(sys.argv[1]))
