"""`python -m ropewalk.train RUN_DIR`: one rank, as DeepSpeed's launcher starts it."""

import sys
from pathlib import Path

from ropewalk.conf.start import end_with_parent, importing

if __name__ == "__main__":
    end_with_parent()
    with importing():
        from ropewalk.train import rank
    rank.run(Path(sys.argv[1]))
