"""`nccl_program.py FOLDER FAULT`: a rank over NCCL (gloo without GPUs) that sums in its groups,
then waits in a collective for rank 1, which dies or stops."""

import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from ropewalk.train.launcher.numa import bind_to_device
from ropewalk.train.loop.watchdog import Watchdog, phase
from ropewalk.train.zero import rendezvous
from ropewalk.train.zero.mesh import (
    Mesh,
    device,
    end_distributed,
    process_groups,
    start_process_group,
)

FAULTS = {"die": signal.SIGKILL, "stop": signal.SIGSTOP}


def main(folder: Path, fault: str) -> None:
    if torch.cuda.is_available():
        bind_to_device(int(os.environ["LOCAL_RANK"]))
    store = rendezvous.join(60)
    with Watchdog(folder, store, 20.0 if fault == "stop" else 1800.0):
        with phase("joining the process group"):
            start_process_group(store)
        mesh = Mesh.of(2)
        group = process_groups(mesh).get_sequence_parallel_group()
        value = torch.tensor([float(mesh.rank)], device=device())
        dist.all_reduce(value, group=group)
        first = mesh.rank - mesh.rank % 2
        assert value.item() == 2 * first + 1, value
        with phase("exporting the model"):
            if mesh.rank == 1 and fault in FAULTS:
                os.kill(os.getpid(), FAULTS[fault])
            dist.all_reduce(value)
            assert value.item() == sum(2 * (n - n % 2) + 1 for n in range(mesh.world_size)), value
        end_distributed()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
