"""Ranks of one machine are neighbours, however a launcher numbers its processes."""

from typing import Any

import pytest

from ropewalk.conf.errors import ConfigError
from ropewalk.train.launcher import layout


def introductions(*rows: tuple[str, int | None, int], **facts: Any) -> dict[int, dict[str, Any]]:
    return {
        n: {"host": host, "node": node, "local_rank": local, "facts": dict(facts)}
        for n, (host, node, local) in enumerate(rows)
    }


def test_a_task_a_node() -> None:
    two = layout.of(introductions(("a", 0, 0), ("b", 1, 0)))
    assert (two.nodes, two.is_by_task) == (2, False)
    assert [two.position(n) for n in range(2)] == [(0, 0), (1, 0)]
    assert two.name(1) == "node 1 on b"


def test_processes_dealt_in_turn_become_neighbours() -> None:
    """mpirun --map-by node, srun --distribution=cyclic: rank 0 on a, 1 on b, 2 on a, 3 on b."""
    rows = [("a", None, 0), ("b", None, 0), ("a", None, 1), ("b", None, 1)]
    four = layout.of(introductions(*rows))
    assert [four.position(n) for n in range(4)] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert four.is_by_task and four.name(3) == "process 3 on b"


def test_two_nodes_of_one_name_are_two() -> None:
    """Two of Slurm's daemons on one machine, as in our own tests."""
    assert layout.of(introductions(("a", 0, 0), ("a", 1, 0))).nodes == 2


def test_unequal_numbers_of_processes_are_refused() -> None:
    with pytest.raises(ConfigError, match="started 2 on a, 1 on b; every machine must have equal"):
        layout.of(introductions(("a", 0, 0), ("a", 0, 1), ("b", 1, 0)))


@pytest.mark.parametrize(
    ("name", "value", "way_out"),
    [
        ("torch", "2.13.0", "use the same environment on every machine"),
        ("settings", "ff00", "give every machine the same words"),
        ("ranks", 4, "set train.launcher.ranks_per_node to a number that every machine has"),
    ],
)
def test_each_difference_is_named_with_its_machine(name: str, value: Any, way_out: str) -> None:
    said = introductions(
        ("a", 0, 0), ("b", 1, 0), ("c", 2, 0), torch="2.14.1", settings="aa11", ranks=8
    )
    layout.refuse_unequal(said, layout.of(said))
    first = said[0]["facts"][name]
    said[2]["facts"][name] = value
    with pytest.raises(ConfigError) as error:
        layout.refuse_unequal(said, layout.of(said))
    assert str(error.value).startswith(
        f"{name} is {first} on node 0 on a and {value} on node 2 on c; it must be equal "
        f"everywhere; {way_out}"
    )
