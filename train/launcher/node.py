"""The ranks of one machine, which may be one of several: started with DeepSpeed's variables, and
ended when one of them fails.

What `deepspeed.launcher.launch` does, with three differences. Its imports, which are DeepSpeed's
and torch's, do not come before those of the ranks: 1.5 s. The end of a rank is noticed at once, not
within a second. SIGTERM is left to the ranks: where a whole job is ended (Slurm, a container),
every process gets it; the ranks save a checkpoint and exit 75, and that launcher would kill them
within 30 seconds and exit 1.
"""

import argparse
import base64
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from subprocess import Popen

import psutil

from ropewalk.train.launcher import failure
from ropewalk.train.launcher.process import die_with_parent

GRACE_S = 30
"""Between SIGTERM and SIGKILL for the ranks beside one that failed."""


def main() -> None:
    die_with_parent()
    # handlers, since the ranks would inherit an ignored signal
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    arguments = parse()
    command = [sys.executable, "-u", "-m", arguments.module, *arguments.module_arguments]
    all_environments = environments(arguments)
    ranks = [Popen(command, env=env) for env in all_environments]
    sys.exit(wait(ranks, [int(env["RANK"]) for env in all_environments]))


def parse() -> argparse.Namespace:
    """Those of DeepSpeed's launcher that command.py gives."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--world_info", required=True)
    parser.add_argument("--master_addr", required=True)
    parser.add_argument("--master_port", required=True)
    parser.add_argument("--node_rank", type=int, default=0)
    parser.add_argument("--local_rank", type=int, help="start this one alone, of those here")
    parser.add_argument("--log_level")
    parser.add_argument("--no_local_rank", action="store_true")
    parser.add_argument("--module", required=True)
    parser.add_argument("module_arguments", nargs=argparse.REMAINDER)
    return parser.parse_args()


def environments(arguments: argparse.Namespace) -> list[Mapping[str, str]]:
    """What each rank finds in its environment."""
    machines = list(json.loads(base64.urlsafe_b64decode(arguments.world_info)).values())
    devices, node = machines[arguments.node_rank], arguments.node_rank
    first = sum(len(of_machine) for of_machine in machines[:node])
    shared = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, devices)),
        "MASTER_ADDR": arguments.master_addr,
        "MASTER_PORT": arguments.master_port,
        "WORLD_SIZE": str(sum(len(of_machine) for of_machine in machines)),
        "LOCAL_SIZE": str(len(devices)),
        "CROSS_RANK": str(node),
        "CROSS_SIZE": str(len(machines)),
    }
    if arguments.local_rank is not None:
        own = {"RANK": str(first + arguments.local_rank), "LOCAL_RANK": str(arguments.local_rank)}
        return [{**shared, **own, **_own_device()}]
    return [{**shared, "RANK": str(first + n), "LOCAL_RANK": str(n)} for n in range(len(devices))]


def _own_device() -> dict[str, str]:
    """Where a launcher gives each of its processes one device: that one, which is its first."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    is_one = bool(visible) and "," not in visible
    return {"CUDA_VISIBLE_DEVICES": visible, "LOCAL_RANK": "0"} if is_one else {}


def wait(ranks: Sequence[Popen[bytes]], numbers: Sequence[int]) -> int:
    """0 once every rank has ended well; else the exit code of the first that did not, after the
    others were ended. `numbers`: of the ranks."""
    alive = {rank.pid: rank for rank in ranks}
    number_of = {rank.pid: number for number, rank in zip(numbers, ranks, strict=True)}
    while alive:
        pid, status = os.wait()
        rank = alive.pop(pid, None)
        code = os.waitstatus_to_exitcode(status)
        if rank is not None:
            rank.returncode = code
        if rank is not None and code:
            if code < 0:
                failure.leave_note_of_signal(number_of[pid], -code)
            end(alive.values())
            return code
    return 0


def end(ranks: Iterable[Popen[bytes]]) -> None:
    """End the processes and those that they started: SIGTERM, and SIGKILL after GRACE_S."""
    processes = []
    for rank in ranks:
        try:
            process = psutil.Process(rank.pid)
            processes += [*process.children(recursive=True), process]
        except psutil.NoSuchProcess:
            continue  # it has ended meanwhile
    for process in processes:
        _signal(process.terminate)
    _, alive = psutil.wait_procs(processes, timeout=GRACE_S)
    for process in alive:
        _signal(process.kill)


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return  # it has ended meanwhile


if __name__ == "__main__":
    main()
