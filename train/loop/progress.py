"""How far a rank is, as it tells the others, and which ranks the others wait for."""

from collections.abc import Callable, Mapping
from typing import NamedTuple


class Heartbeat(NamedTuple):
    """How far a training is: its step (from 0), how many of its phases are done, and the last of
    them.

    `moved` counts other work, such as files of a checkpoint. It shows that a rank moves on, but not
    which rank is behind.
    """

    step: int = 0
    done: int = 0
    phase: str = ""
    moved: int = 0
    extra_s: float = 0.0
    """On top of the time that a rank may take here."""

    def position(self) -> str:
        phase = f"after its {self.phase}" if self.phase else "at its start"
        return f"at step {self.step + 1}, {phase}"


class Phase(NamedTuple):
    """What a rank does, between its start and its end."""

    number: int
    name: str
    limit_s: float
    heartbeat: Callable[[], Heartbeat] | None = None


class Beat(NamedTuple):
    """A rank's message: how far it is, and whether it has been there longer than it should."""

    phase: int
    step: int
    done: int
    position: str
    limit_s: float
    overdue: bool


def stalled_ranks(beats: Mapping[int, Beat | None], silent: set[int]) -> dict[int, str]:
    """The ranks that the others wait for, and how far they are.

    They are the `silent` ones, which send no beats; if none is, the ranks furthest behind.
    """
    if silent:
        return {
            rank: f"it was last seen {beat.position if beat else 'before its first message'}, and "
            "its process does not answer"
            for rank, beat in beats.items()
            if rank in silent
        }
    progress = {rank: (b.phase, b.step, b.done) for rank, b in beats.items() if b is not None}
    furthest_behind = min(progress.values())
    behind = [rank for rank, done in progress.items() if done == furthest_behind]
    return {rank: f"it is {beat.position}" for rank in behind if (beat := beats[rank])}
