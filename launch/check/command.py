"""`ropewalk check`: this machine first, then the ranks; lines as they come, then check.json."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext, redirect_stdout
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
from ropewalk.launch.check.started_ranks import left_out, lines_of_ranks, with_planned_step
from ropewalk.launch.pipeline import disk_space, preflight
from ropewalk.launch.pipeline.record import machine
from ropewalk.launch.pipeline.run import Run, runs_of
from ropewalk.launch.pipeline.versions import versions
from ropewalk.train.launcher.command import ranks_per_node, world_size
from ropewalk.train.zero.config import batch_ramp

FOLDER, TEMPORARY, RESULT = "check", "check.tmp", "check.json"
MODULE = "ropewalk.launch.check"


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
            no_step = rehearsal.prepare(run, folder)
        except OSError as error:
            yield _unwritable(error)
            yield from left_out({"shared folder"}, "runs_dir cannot be written")
            return
        except small_model.NoSmallModelError as error:
            yield from left_out(set(), str(error))
            return
        if no_step:
            yield from lines_of_ranks(run, folder, module)
        else:
            yield from with_planned_step(run, folder, module)


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


def describe(config: Config) -> str:
    """`--dry-run`: what would be started."""
    names = ", ".join(one.name for one in CHECKS)
    return f"check: it would start {world_size(config)} rank(s), and check disk, memory, {names}"


def show(line: Line) -> None:
    """Print it at once."""
    print(line.text(), flush=True)


def run_and_print(config: Config, as_json_only: bool) -> list[str]:
    """Returns the names of the lines that failed. Raises: ConfigError.

    `as_json_only`: standard output gets JSON and nothing else, warnings of settings neither.
    """
    started = time.monotonic()
    run = runs_of(config)[-1]
    with redirect_stdout(sys.stderr) if as_json_only else nullcontext():
        lines = check(run, show)
    written = publish(run, lines)
    if as_json_only:
        print(json.dumps(as_json(lines, conditions(config)), indent=1))
    else:
        print(summary(lines, time.monotonic() - started))
        print(written)
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
    """Write check.json and a page, in place of former ones; where they are."""
    config, folder = run.config, run.folder / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / RESULT, as_json(lines, conditions(config)))
        (folder / PAGE).write_text(page(config, world_size(config), lines), encoding="utf-8")
    except OSError as error:
        return f"{folder / RESULT} could not be written: {error.strerror}"
    return f"wrote {folder / RESULT} and {folder / PAGE}"
