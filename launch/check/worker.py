"""One rank of a self-test: the checks in order, their lines to the command that started it."""

import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from transformers.utils import logging as transformers_logging

from ropewalk.conf.artifacts.disk import disk_error
from ropewalk.conf.errors import RopewalkError
from ropewalk.conf.log import log
from ropewalk.launch.check import nccl_log, network, shared_folder
from ropewalk.launch.check.checks import CHECKS, Check, Rank
from ropewalk.launch.check.line import FAIL, Line, failed
from ropewalk.launch.check.network_probe import check_network
from ropewalk.launch.check.rehearsal import Rehearsal
from ropewalk.train.launcher import failure
from ropewalk.train.launcher.environment import remove_sent
from ropewalk.train.launcher.process import ignore_library_warnings
from ropewalk.train.loop.step import use_deterministic_kernels
from ropewalk.train.loop.watchdog import Watchdog, phase
from ropewalk.train.zero import rendezvous
from ropewalk.train.zero.mesh import end_distributed, start_process_group

MARK = "\x1eropewalk check "
"""Begins a line of a rank's output that is JSON for the command: it passes through a launcher and
a folder that cannot be written."""
HANG_S = 300.0
"""In which a check must end, on a busy CPU too."""


def check(folder: Path) -> None:
    """All checks, in order; the first rank sends their lines. Where the network between the hosts
    does not hold, the ranks end after that line."""
    rehearsal = Rehearsal.read(folder)
    launcher = rehearsal.config.train.launcher
    if not torch.cuda.is_available() or rehearsal.config.train.deterministic:
        use_deterministic_kernels()
    store = rendezvous.join(launcher.start_timeout_s)
    if os.environ["RANK"] == "0":
        remove_sent()
    with Watchdog(folder, store, HANG_S):
        send({"started": network.NAME})
        with phase(network.NAME):
            line = check_network(store, *rendezvous.rank_and_world_size())
        send(asdict(line))
        if line.status == FAIL:
            return
        if torch.cuda.is_available():
            os.environ |= nccl_log.written_to(folder / f"nccl.{os.environ['RANK']}.log")
        with phase("joining the process group"):
            start_process_group(store)
        rank = Rank(rehearsal)
        for one in CHECKS:
            send({"started": one.name})
            with phase(one.name):
                lines = lines_of(one, rank)
            for line in lines:
                send(asdict(line))
            if shared_folder.NAME in failed(lines):  # the next checks would not be able to write
                break
        with phase("leaving the process group"):
            end_distributed()


def lines_of(one: Check, rank: Rank) -> list[Line]:
    """The lines of a check; a refusal or a proof that said no, on any rank, is a failed line."""
    problem, lines = "", []
    try:
        lines = one.run(rank)
    except RopewalkError as error:
        problem = f"rank {rank.ranks.rank}: {error}"
    if problem := rank.ranks.first(problem):
        value, rule, way_out = problem.rpartition("; ")
        return [Line(one.name, FAIL, value if rule else problem, "", way_out if rule else "")]
    return lines


def send(content: dict[str, object]) -> None:
    """From rank 0 to the command."""
    if os.environ.get("RANK", "0") == "0":
        print(f"\n{MARK}{json.dumps(content)}", flush=True)


def run(folder: Path) -> None:
    """The process of one rank. An error becomes a message that names the rank, and an exit code."""
    ignore_library_warnings()
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    log.setLevel(logging.WARNING)
    transformers_logging.disable_progress_bar()
    try:
        check(folder)
    except Exception as error:
        sys.exit(failure.report(disk_error(error) or error, folder))
