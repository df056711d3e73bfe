"""Several commands, one of which leads: whatever ends one of them ends all, soon, with its reason
and exit code. Real processes and sockets; a node is a process here, two namespaces in
test_two_nodes.py."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import node_commands as program
import pytest

SOON_S = 20.0
Start = Callable[..., list[subprocess.Popen[str]]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(ranks, act, size, port, **env)`: the commands of those ranks."""
    processes: list[subprocess.Popen[str]] = []

    def run(
        ranks: range, act: str, size: int = 2, port: int = 0, **env: str
    ) -> list[subprocess.Popen[str]]:
        new = [
            subprocess.Popen(
                [sys.executable, program.__file__, str(n), str(size), str(port), tmp_path, act],
                env=os.environ | env,
                stderr=subprocess.PIPE,
                text=True,
            )
            for n in ranks
        ]
        processes.extend(new)
        return new

    yield run
    for process in processes:
        process.kill()
        process.wait()


def ends(processes: list[subprocess.Popen[str]], within_s: float = SOON_S) -> list[tuple[int, str]]:
    """Exit code and messages of each, all within the time."""
    until = time.monotonic() + within_s
    texts = [
        process.communicate(timeout=max(0.1, until - time.monotonic()))[1] for process in processes
    ]
    return [(process.returncode, text) for process, text in zip(processes, texts, strict=True)]


def wait_for(path: Path) -> None:
    until = time.monotonic() + SOON_S
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.02)


def test_all_end_well_with_the_first(start: Start) -> None:
    assert [code for code, _ in ends(start(range(3), "nothing", size=3))] == [0, 0, 0]


def test_a_refusal_is_every_commands(start: Start) -> None:
    (_, first), (code, second) = ends(start(range(2), "refuse"))
    assert code == 2 and first.startswith("data.seq_len is 7; it must be even")
    assert "node 0 on host-0 ended with exit code 2: data.seq_len is 7; it must be even" in second


def test_a_defect_of_the_first_ends_the_others(start: Start) -> None:
    (first, trace), (second, text) = ends(start(range(2), "fail"))
    assert (first, second) == (1, 1) and "ValueError: a defect" in trace
    assert "node 0 on host-0 ended with exit code 1" in text


def test_the_first_is_killed(start: Start) -> None:
    (first, _), *others = ends(start(range(3), "die", size=3))
    assert first == -signal.SIGKILL and [code for code, _ in others] == [1, 1]
    assert all("ended without a message; this command ends too" in text for _, text in others)


def test_another_is_killed_during_a_stage_of_the_first(start: Start, tmp_path: Path) -> None:
    processes = start(range(3), "sleep", size=3)
    wait_for(tmp_path / "gathered")
    processes[1].kill()
    (first, said), _, (third, heard) = ends(processes)
    assert (first, third) == (1, 1)
    assert "node 1 on host-1 ended without a message" in said and "node 1 on host-1" in heard


def test_another_is_killed_while_ranks_run(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes = start(range(2), "start")
    wait_for(tmp_path / "started-(1, 0)")
    processes[1].kill()
    (first, said), _ = ends(processes)
    assert first == 1 and "node 1 on host-1 ended without a message" in said


@pytest.mark.parametrize(("program", "code"), [("exit 0", 0), ("exit 75", 75), ("kill -9 $$", 247)])
def test_the_code_of_ranks_elsewhere_is_the_codes_of_all(
    start: Start, program: str, code: int
) -> None:
    (first, said), (second, _) = ends(start(range(2), "start", RANKS_S="0.2", RANK_PROGRAM=program))
    assert first == second == (1 if code else 0)
    assert not code or f"the ranks ended with {code}" in said


@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_to_one_stops_all_in_good_order(start: Start, tmp_path: Path, rank: int) -> None:
    processes = start(range(2), "sleep")
    wait_for(tmp_path / "gathered")
    time.sleep(0.3)
    processes[rank].send_signal(signal.SIGTERM)
    assert [code for code, _ in ends(processes)] == [75, 75]


def test_the_one_that_did_not_come_is_named(start: Start) -> None:
    (first, said), (second, heard) = ends(start(range(2), "nothing", size=4, TIMEOUT_S="3"))
    assert (first, second) == (2, 2)
    assert said.startswith("launch.join_timeout_s is 3; node 2, 3 did not come to 127.0.0.1:")
    assert "host-0, host-1 did; look at" in said and "node 2, 3 did not come" in heard


def test_a_leader_that_does_not_come_is_named(start: Start) -> None:
    ((code, said),) = ends(start(range(1, 2), "nothing", port=7919, TIMEOUT_S="2"))
    assert code == 2 and said.startswith("launch.address is 127.0.0.1; the first command must lis")
    assert "port 7919, and did not (Connection refused)" in said


def test_unequal_machines_are_refused_on_all(start: Start) -> None:
    first = start(range(1), "nothing")
    second = start(range(1, 2), "nothing", FACTS=json.dumps({"torch": "2.13.0"}))
    for code, text in ends(first + second):
        assert code == 2 and "torch is 2.14.1 on node 0 on host-0 and 2.13.0 on node 1" in text


def test_disks_that_are_not_shared_are_refused(start: Start, tmp_path: Path) -> None:
    first, second = start(range(1), "nothing"), start(range(1, 2), "nothing", BLIND="1")
    (code, said), (other, _) = ends(first + second)
    assert (code, other) == (
        2,
        2,
    ) and f"does not see what node 0 on host-0 writes into {tmp_path}" in said
    assert not list((tmp_path / "runs").iterdir())


def test_two_commands_of_one_number_are_refused(start: Start, tmp_path: Path) -> None:
    first = start(range(1), "nothing", size=3)
    wait_for(tmp_path / "port")
    second, third = start(range(1, 2), "nothing", size=3), start(range(1, 2), "nothing", size=3)
    (code, said), *others = ends(first + second + third)
    assert code == 2 and all(other in (1, 2) for other, _ in others)
    assert "two commands are process 1 of test: on host-1 and host-1" in said


def test_a_port_in_use_is_told_or_passed_over(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        ((code, said),) = ends(start(range(1), "nothing", port=port))
        assert code == 2 and said.startswith(f"launch.port is {port}; the commands of all mach")
        assert "cannot be opened (Address already in use); set launch.port to a free one" in said
    world: Any = program_world(tmp_path)
    with socket.create_server(("", world.ports[0])):
        assert [code for code, _ in ends(start(range(2), "nothing"))] == [0, 0]
    assert (tmp_path / "port").read_text() == str(world.ports[1])


def program_world(folder: Path) -> Any:
    from ropewalk.train.launcher.world import World

    return World(job=f"job {folder}")


def test_a_stranger_at_the_port_is_dropped(start: Start, tmp_path: Path) -> None:
    first = start(range(1), "nothing")
    wait_for(tmp_path / "port")
    port = int((tmp_path / "port").read_text())
    with socket.create_connection(("127.0.0.1", port)) as scan:
        scan.sendall(b"GET / HTTP/1.0\r\n\r\n")
        scan.settimeout(5)
        assert scan.recv(10) == b""
    assert [code for code, _ in ends(first + start(range(1, 2), "nothing"))] == [0, 0]
