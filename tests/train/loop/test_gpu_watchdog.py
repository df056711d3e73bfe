"""What only GPUs show: groups by one split of NCCL's communicator, and that a rank which waits in
an NCCL collective learns that another died or stopped."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ranks
import torch

PROGRAM = Path(__file__).parents[2] / "helpers" / "nccl_program.py"

pytestmark = pytest.mark.gpu(count=2)


def run(folder: Path, fault: str, within_s: float) -> tuple[list[int | None], str, float]:
    """Exit codes of an even number of ranks, None for one that still runs; what they printed; and
    seconds."""
    world = max(2, torch.cuda.device_count() // 2 * 2)
    env = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"}
    env |= {"WORLD_SIZE": str(world), "LOCAL_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"}
    env["MASTER_PORT"] = str(ranks.free_port())
    started = time.monotonic()
    processes = [
        subprocess.Popen(
            [sys.executable, PROGRAM, folder, fault],
            env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=(folder / f"stderr-{rank}").open("w"),
        )
        for rank in range(world)
    ]
    codes: list[int | None] = [None] * world
    try:
        while time.monotonic() - started < within_s and None in codes:
            codes = [process.poll() for process in processes]
            if fault == "stop" and None not in codes[:1] + codes[2:]:
                break
            time.sleep(0.2)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    printed = "".join((folder / f"stderr-{rank}").read_text() for rank in range(world))
    return codes, printed, time.monotonic() - started


def test_groups_of_one_split_exchange_and_all_leave(tmp_path: Path) -> None:
    codes, printed, _ = run(tmp_path, "none", 180)
    assert set(codes) == {0}, printed
    assert "destroy_process_group" not in printed  # torch warns of groups that are left open


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("die", "rank 1 on {} ended without a message, last seen exporting the model"),
        ("stop", "rank 1 on {} holds the others up for 20 s (train.launcher.hang_timeout_s): it"),
    ],
)
def test_a_rank_that_waits_in_nccl_is_ended(tmp_path: Path, fault: str, line: str) -> None:
    """After a start of up to two minutes; NCCL alone waits for a day."""
    codes, printed, _ = run(tmp_path, fault, 180)
    assert codes[1] == (-9 if fault == "die" else None), printed
    assert {*codes[:1], *codes[2:]} == {1}, printed
    assert printed.count(line.format(socket.gethostname())) == 1, printed
