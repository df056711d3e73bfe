"""A rank that died or hangs is named with its host and phase, within seconds, and all ranks end.

The others wait in a sleep: as in NCCL, no collective tells them that a rank is gone.
"""

import json
import re
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import ranks
import watched_ranks

from ropewalk.launch.config.compose import compose
from ropewalk.train.launcher import failure
from ropewalk.train.launcher.peers import Peers
from ropewalk.train.loop import watchdog
from ropewalk.train.loop.progress import Phase
from ropewalk.train.loop.trainer import Trainer
from ropewalk.train.loop.watchdog import Watchdog

HOST = socket.gethostname()
POSITION = {
    "loading the model": "loading the model",
    "training": "at step 7, after its forward",
    "exporting the model": "exporting the model",
}
SOON_S = 12.0  # on a loaded machine; without the watchdog it is 600


def end_of(
    tmp_path: Path, world: int, where: str, acts: dict[int, str], timeout_s: float = 1800.0
) -> tuple[list[int | None], str, float]:
    """Exit codes, what all ranks printed, and seconds from the first end to the last."""
    codes, seconds = ranks.run_to_exit(
        world, watched_ranks.run, tmp_path, where, acts, timeout_s, timeout_s=60
    )
    printed = [(tmp_path / f"stderr-{rank}").read_text() for rank in range(world)]
    return codes, "".join(printed), seconds


@pytest.mark.parametrize(
    ("where", "rank"),
    [
        ("loading the model", 1),
        ("training", 0),
        ("exporting the model", 1),
        pytest.param("loading the model", 0, marks=pytest.mark.slow),
        pytest.param("training", 1, marks=pytest.mark.slow),
        pytest.param("exporting the model", 0, marks=pytest.mark.slow),
    ],
)
def test_a_killed_rank_is_named_once_and_ends_all(tmp_path: Path, where: str, rank: int) -> None:
    codes, printed, seconds = end_of(tmp_path, 3, where, {rank: "die"})
    assert codes[rank] == -9 and [c for n, c in enumerate(codes) if n != rank] == [1, 1], printed
    line = f"rank {rank} on {HOST} ended without a message, last seen {POSITION[where]}; the "
    assert printed.count("\n") == 1 and printed.startswith(line), printed
    assert seconds < SOON_S
    note = failure.read(tmp_path)
    assert note is not None and (note["rank"], note["exit_code"]) == (rank, 1)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_rank_with_an_error_ends_the_others_with_its_exit_code(tmp_path: Path, rank: int) -> None:
    codes, printed, seconds = end_of(tmp_path, 3, "loading the model", {rank: "refuse"})
    assert codes == [2, 2, 2], printed
    first, second = printed.splitlines() if rank == 0 else printed.splitlines()[::-1]
    assert first == f"rank {rank} on {HOST}: train.x is 1; it must be 2; set 2"
    ended = f"rank {rank} on {HOST} failed loading the model; the ranks that wait for it are ended"
    assert second == ended
    assert seconds < watchdog.GRACE_S + SOON_S


def test_a_rank_that_lost_its_peer_waits_for_the_reason(tmp_path: Path) -> None:
    acts = {0: "lose_peer", 1: "die", 2: "lose_peer"}
    codes, printed, _ = end_of(tmp_path, 3, "training", acts)
    assert codes == [1, -9, 1] and printed.count("\n") == 1, printed
    assert f"rank 1 on {HOST} ended without a message, last seen at step 7, after its" in printed


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_stopped_process_is_named_with_its_phase(tmp_path: Path, rank: int) -> None:
    """It is alive: its connection stays, and only the timeout ends the run."""
    codes, _ = ranks.run_to_exit(
        3, watched_ranks.run, tmp_path, "exporting the model", {rank: "stop"}, 2.0, timeout_s=20
    )
    assert codes[rank] is None and [c for n, c in enumerate(codes) if n != rank] == [1, 1]
    printed = "".join((tmp_path / f"stderr-{n}").read_text() for n in range(3))
    named = (
        f"rank {rank} on {HOST} holds the others up for 2 s (train.launcher.hang_timeout_s): "
        "it was last seen exporting the model, and its process does not answer\n"
    )
    assert printed.startswith(named) and printed.count(" holds the others up") == 1, printed


def test_a_rank_that_waits_in_vain_shows_where(tmp_path: Path) -> None:
    """All are alive; the one furthest behind is named and prints its stack."""
    codes, printed, _ = end_of(tmp_path, 2, "loading the model", {0: "wait"}, 2.0)
    assert codes == [1, 1]
    assert f"rank 0 on {HOST} holds the others up for 2 s" in printed
    assert ": it is loading the model\n" in printed
    assert re.search(r"rank 0 is here:\n.*def wait|time.sleep\(600\)", printed, re.DOTALL), printed


def test_a_phase_has_the_time_that_its_bytes_take(tmp_path: Path) -> None:
    (seconds,) = ranks.run(1, watched_ranks.run_long, tmp_path, 60.0)
    assert seconds >= 3
    codes, _ = ranks.run_to_exit(1, watched_ranks.run_long, tmp_path, 0.0, timeout_s=60)
    assert codes == [1]
    assert watchdog.read_s(140_000_000_000) == 7000  # 70 billion weights in bf16 at 20 MB/s


def test_a_stranger_at_the_port_is_not_taken_for_a_rank() -> None:
    port_and_token: dict[str, str] = {}

    class Store:
        def set(self, key: str, value: str) -> None:
            port_and_token[key] = value

    peers = Peers.connect(Store(), 0, 2)  # type: ignore[arg-type]
    port, token = json.loads(port_and_token["peers"])
    lines = [b"GET / HTTP/1.1\n", b'{"rank": 1, "token": "x"}\n', b"[]\n"]
    for line in lines:
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(line)
            received = [event for _ in range(4) for event in peers.receive(0.2)]
            assert not received and not peers.connections
    with socket.create_connection(("127.0.0.1", port)) as member:
        member.sendall(json.dumps({"rank": 1, "token": token}).encode() + b"\n")
        received = [event for _ in range(4) for event in peers.receive(0.2)]
        assert received == [(1, {"joined": True})] and list(peers.connections) == [1]
    assert [event for _ in range(2) for event in peers.receive(0.2)] == [(1, None)]
    peers.close()


@pytest.mark.parametrize(("step", "overdue"), [(4, False), (5, True)])
def test_the_first_step_after_a_start_has_time_to_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, overdue: bool
) -> None:
    """A training that starts at step 4, and shows no progress for 30 s of its 10."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    config = compose(["recipe=demo", "train.launcher.first_step_extra_s=50"])
    trainer = SimpleNamespace(
        state=SimpleNamespace(step=step),
        first_step=4,
        config=config,
        metrics=SimpleNamespace(timer=SimpleNamespace(events=[("start", 0.0)])),
        checkpointer=SimpleNamespace(writer=SimpleNamespace(finished_jobs=0)),
        validation=SimpleNamespace(windows_measured=0),
    )
    watchdog = Watchdog(tmp_path, None, 10)
    watchdog.current = Phase(1, "training", 10, lambda: Trainer.heartbeat(cast("Any", trainer)))
    watchdog._beat()
    watchdog.since -= 30
    watchdog._beat()
    beat = watchdog.beats[0]
    assert beat is not None and beat.overdue == overdue
    assert beat.limit_s == (10 if overdue else 60)
