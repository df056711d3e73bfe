"""`ropewalk check`: this machine first, then the ranks; lines as they come, then check.json."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from ropewalk.conf.artifacts.locks import lock_or_refuse
from ropewalk.conf.artifacts.records import remove, write_json
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.launch.check import rehearsal, small_model
from ropewalk.launch.check.checks import CHECKS
from ropewalk.launch.check.facts import host_facts
from ropewalk.launch.check.host import HostNeeds, disk_line, host_lines
from ropewalk.launch.check.line import FAIL, Line, as_json, failed, summary
from ropewalk.launch.check.page import PAGE, page
from ropewalk.launch.check.worker import MARK
from ropewalk.launch.pipeline import disk_space, preflight
from ropewalk.launch.pipeline.record import machine
from ropewalk.launch.pipeline.run import Run, runs_of
from ropewalk.launch.pipeline.versions import versions
from ropewalk.train.launcher import failure
from ropewalk.train.launcher.command import command, ranks_per_node, world_size
from ropewalk.train.launcher.ranks import environment_for, killed
from ropewalk.train.zero.config import batch_ramp

FOLDER, TEMPORARY, RESULT = "check", "check.tmp", "check.json"
MODULE = "ropewalk.launch.check"
LOG = "ranks.log"


def check(run: Run, show: Callable[[Line], None], module: str = MODULE) -> list[Line]:
    """Every line, each handed to `show` as it is known. What the ranks said stays in `check.tmp`
    where one failed.

    `module`: what a rank runs. Raises: ConfigError for settings that no training could start with.
    """
    config = run.config
    if problems := preflight.model_problems(run, ("rope", "train")):
        raise ConfigError("\n".join(problems))
    batch_ramp(config, world_size(config) // config.train.sp_size)  # refuses, before any work
    lines = []
    for line in _lines(run, module):
        show(line)
        lines.append(line)
    if not failed(lines):
        remove(run.folder / TEMPORARY)
    return lines


def _lines(run: Run, module: str) -> Iterator[Line]:
    yield from _machine(run)
    folder = run.folder / TEMPORARY
    with ExitStack() as held:
        try:
            held.enter_context(lock_or_refuse(run.folder, TEMPORARY))
            remove(folder)
            folder.mkdir(parents=True)
            rehearsal.prepare(run, folder)
        except OSError as error:
            yield _unwritable(error)
            yield from _left_out({"shared folder"}, "runs_dir cannot be written")
            return
        except small_model.NoSmallModelError as error:
            yield from _left_out(set(), str(error))
            return
        yield from _of_ranks(run, folder, module)


def _unwritable(error: OSError) -> Line:
    return Line(
        "shared folder",
        FAIL,
        f"{error.strerror}: {error.filename}",
        "writable on all ranks",
        "set runs_dir to a folder that every host may write to, mounted read-write",
    )


def _machine(run: Run) -> Iterator[Line]:
    """What is known before a rank starts."""
    config, count = run.config, world_size(run.config)
    needs = list(disk_space.needs(run, ("train",)))
    stands = Line.skipped("disk", "the training is done: nothing more is written")
    yield disk_line(needs) if needs else stands
    yield from host_lines(
        host_facts(of_rank=False),
        HostNeeds.of(
            config,
            disk_space.num_parameters(run),
            ranks_per_node(config),
            count,
            torch.cuda.is_available(),
        ),
    )


def _of_ranks(run: Run, folder: Path, module: str) -> Iterator[Line]:
    """Start the ranks and pass on what the first of them sends, until they end."""
    done: set[str] = set()
    current, log = "start of the ranks", []
    with environment_for(run.config, folder) as env:
        arguments = command(run.config, folder, module)
        process = subprocess.Popen(
            arguments,
            env=env,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            assert process.stdout is not None
            for text in process.stdout:
                before, mark, content = text.partition(MARK.strip())
                if not mark:
                    log.append(text)
                    continue
                message: dict[str, Any] = json.loads(content)
                if "started" in message:
                    current = message["started"]
                    done.add(current)
                elif "name" in message:
                    yield Line(**message)
            code = process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            (folder / LOG).write_text("".join(log))
    if code:
        yield _ended(folder, current, code, log)
        yield from _left_out(done, f"the ranks ended during {current}")


def _ended(folder: Path, current: str, code: int, log: list[str]) -> Line:
    """The line of the check in which a rank failed."""
    note = failure.read(folder)
    told = f"{failure.rank_name(note)}: {note['error']}" if note else killed(code, "check")
    return Line(current, FAIL, told, "", f"the ranks' messages are in {folder / LOG}")


def _left_out(done: set[str], reason: str) -> Iterator[Line]:
    yield from (Line.skipped(one.name, reason) for one in CHECKS if one.name not in done)


def describe(config: Config) -> str:
    """`--dry-run`: what would be started."""
    names = ", ".join(one.name for one in CHECKS)
    return f"check: it would start {world_size(config)} rank(s), and check disk, memory, {names}"


def run_and_print(config: Config, as_json_only: bool) -> list[str]:
    """Returns the names of the lines that failed. Raises: ConfigError."""
    started = time.monotonic()

    def show(line: Line) -> None:
        print(line.text(), file=sys.stderr if as_json_only else sys.stdout, flush=True)

    run = runs_of(config)[-1]
    lines = check(run, show)
    told = publish(run, lines)
    if as_json_only:
        print(json.dumps(as_json(lines, conditions(config)), indent=1))
    else:
        print(summary(lines, time.monotonic() - started))
        print(told)
    return failed(lines)


def conditions(config: Config) -> dict[str, Any]:
    """The machines, versions and mesh that a result is of."""
    train = config.train
    return {
        "machine": machine(),
        "versions": versions(),
        "ranks": world_size(config),
        "sp_size": train.sp_size,
        "zero_stage": train.zero_stage,
        "precision": train.precision,
    }


def publish(run: Run, lines: list[Line]) -> str:
    """Write check.json and a page, in place of former ones; what to tell."""
    config, folder = run.config, run.folder / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RESULT, as_json(lines, conditions(config)))
        (folder / PAGE).write_text(page(config, world_size(config), lines), encoding="utf-8")
    except OSError as error:
        return f"{folder / RESULT} could not be written: {error.strerror}"
    return f"wrote {folder / RESULT} and {folder / PAGE}"
