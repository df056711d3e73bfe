"""The ranks of one machine: started with DeepSpeed's variables, and ended when one of them fails.

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
    ranks = [Popen(command, env=env) for env in environments(arguments)]
    sys.exit(wait(ranks))


def parse() -> argparse.Namespace:
    """Those of DeepSpeed's launcher that command.py gives."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--world_info", required=True)
    parser.add_argument("--master_addr", required=True)
    parser.add_argument("--master_port", required=True)
    parser.add_argument("--log_level")
    parser.add_argument("--no_local_rank", action="store_true")
    parser.add_argument("--module", required=True)
    parser.add_argument("module_arguments", nargs=argparse.REMAINDER)
    return parser.parse_args()


def environments(arguments: argparse.Namespace) -> list[Mapping[str, str]]:
    """What each rank finds in its environment."""
    (devices,) = json.loads(base64.urlsafe_b64decode(arguments.world_info)).values()
    count = str(len(devices))
    shared = {
        **os.environ,
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, devices)),
        "MASTER_ADDR": arguments.master_addr,
        "MASTER_PORT": arguments.master_port,
        "WORLD_SIZE": count,
        "LOCAL_SIZE": count,
        "CROSS_RANK": "0",
        "CROSS_SIZE": "1",
    }
    return [{**shared, "RANK": str(n), "LOCAL_RANK": str(n)} for n in range(len(devices))]


def wait(ranks: Sequence[Popen[bytes]]) -> int:
    """0 once every rank has ended well; else the exit code of the first that did not, after the
    others were ended."""
    alive = {rank.pid: rank for rank in ranks}
    numbers = {rank.pid: number for number, rank in enumerate(ranks)}
    while alive:
        pid, status = os.wait()
        rank = alive.pop(pid, None)
        code = os.waitstatus_to_exitcode(status)
        if rank is not None:
            rank.returncode = code
        if rank is not None and code:
            if code < 0:
                failure.leave_note_of_signal(numbers[pid], -code)
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
