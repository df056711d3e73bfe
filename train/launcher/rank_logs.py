"""What a rank prints goes to a log of its own as well, where a variable names a folder.

A process beside the rank copies it, so that the last lines of a rank that dies are kept. It ends
with the rank, and lives on through the signals that a scheduler sends to every process of a job.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

FOLDER_VARIABLE = "ROPEWALK_RANK_LOGS"
SIGNALS = "HUP INT TERM USR1 USR2"


def copy_output(env: Mapping[str, str] = os.environ) -> None:
    """From here on stdout and stderr of this process go to `rank-N.log` too, in their order."""
    folder, rank = env.get(FOLDER_VARIABLE), env.get("RANK")
    if not folder or rank is None:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    file = shlex.quote(str(Path(folder) / f"rank-{rank}.log"))
    copier = subprocess.Popen(
        ["sh", "-c", f"trap '' {SIGNALS}; exec tee -a {file}"],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    assert copier.stdin is not None
    sys.stdout.flush()
    sys.stderr.flush()
    for descriptor in (1, 2):
        os.dup2(copier.stdin.fileno(), descriptor)
    copier.stdin.close()
