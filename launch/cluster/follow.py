"""Follow a job of Slurm from the machine that submitted it."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ropewalk.conf.errors import FAILED
from ropewalk.launch.cluster import queue
from ropewalk.launch.cluster.queue import JobState

POLL_S = 2.0


@dataclass
class Tail:
    """A log as it grows."""

    file: Path
    offset: int = 0

    def new(self) -> str:
        """What was added since the last call. A shared disk may show the file late."""
        try:
            with self.file.open("rb") as log:
                log.seek(self.offset)
                added = log.read()
        except FileNotFoundError:
            return ""
        self.offset += len(added)
        return added.decode(errors="replace")


def follow(
    job: str, log: Path, show: Callable[[str], object] = sys.stdout.write, poll_s: float = POLL_S
) -> JobState | None:
    """Show what the job prints and how its state changes, until it has ended; its last state.

    None: the controller does not know the job any more. Raises: RopewalkError when Slurm does not
    answer.
    """
    tail, last, state = Tail(log), "", None
    while True:
        shown = queue.states([job])
        state = shown[0] if shown else None
        show(tail.new())
        if state is None:
            return None
        if (line := state_line(state)) != last:
            show(f"job {line}\n")
            last = line
        sys.stdout.flush()
        if state.has_ended:
            show(tail.new())
            return state
        time.sleep(poll_s)


def state_line(state: JobState) -> str:
    """`17: pending (Priority)`, `17: running on n1, attempt 2`."""
    line = f"{state.id}: {state.name.lower()}"
    if state.name == "PENDING":
        return f"{line} ({state.reason})"
    if state.nodes:
        line += f" on {state.nodes}"
    return f"{line}, attempt {state.restarts + 1}" if state.restarts else line


def exit_code(state: JobState) -> int:
    """Of the command that the job ran; 1 where a signal or Slurm ended it."""
    if state.name == "COMPLETED":
        return 0
    return state.exit_code or FAILED
