"""Which ranks each process of a launcher starts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ropewalk.conf.errors import ConfigError

Introduction = Mapping[str, Any]
"""What a process says of itself: `host`, `node` (or None), `local_rank`, `facts` (by name)."""
SHOWN = 8


@dataclass(frozen=True)
class Layout:
    """The processes of each machine, by their number at the launcher, in the order of the ranks."""

    hosts: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def nodes(self) -> int:
        return len(self.hosts)

    @property
    def processes(self) -> int:
        """On each machine."""
        return len(self.hosts[0][1])

    @property
    def is_by_task(self) -> bool:
        """Whether each process is one rank, as under `srun --ntasks-per-node=8`; else each
        machine's only process starts the ranks of its machine."""
        return self.processes > 1

    def position(self, process: int) -> tuple[int, int]:
        """The number of its machine, and its number there."""
        return next(
            (node, processes.index(process))
            for node, (_, processes) in enumerate(self.hosts)
            if process in processes
        )

    def name(self, process: int) -> str:
        """`node 1 on HOST`, or `process 9 on HOST`."""
        node, _ = self.position(process)
        number = f"process {process}" if self.is_by_task else f"node {node}"
        return f"{number} on {self.hosts[node][0]}"


def of(introductions: Mapping[int, Introduction]) -> Layout:
    """Machines in the order of their first process; the ranks of each follow its local numbers.

    A launcher may deal its numbers to the machines in turn: neighbours in the layout are neighbours
    in a machine. Raises: ConfigError when machines have not equally many processes.
    """
    machines: dict[tuple[str, Any], list[int]] = {}
    for process in sorted(introductions):
        introduction = introductions[process]
        machines.setdefault((introduction["host"], introduction["node"]), []).append(process)
    if len({len(processes) for processes in machines.values()}) > 1:
        counts = ", ".join(f"{len(p)} on {host}" for (host, _), p in machines.items())
        raise ConfigError(
            f"the launcher started {counts}; every machine must have equally many processes; "
            "give it the same number for each"
        )
    local = {process: introduction["local_rank"] for process, introduction in introductions.items()}
    return Layout(
        tuple((host, tuple(sorted(p, key=local.__getitem__))) for (host, _), p in machines.items())
    )


def refuse_unequal(introductions: Mapping[int, Introduction], layout: Layout) -> None:
    """Raises: ConfigError that names each fact in which a process differs from the first."""
    first = introductions[0]["facts"]
    lines = []
    for name in first:
        values = {p: introduction["facts"].get(name) for p, introduction in introductions.items()}
        others = [p for p, value in values.items() if value != first[name]]
        if others:
            shown = ", ".join(f"{values[p]} on {layout.name(p)}" for p in others[:SHOWN])
            lines.append(
                f"{name} is {first[name]} on {layout.name(0)} and {shown}; it must be equal "
                f"everywhere; {WAYS_OUT.get(name, 'use the same environment on every machine')}"
            )
    if lines:
        raise ConfigError("\n".join(lines))


WAYS_OUT = {
    "settings": "give every machine the same words",
    "ranks": "set train.launcher.ranks_per_node to a number that every machine has devices for",
}
