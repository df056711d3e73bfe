"""The process of one job of the local pool.

Jobs are forked from a server that has imported the libraries once (multiprocessing's forkserver):
a job starts in milliseconds, not in seconds of processor time, and still has a process of its own,
whose death is no other job's.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import get_context, parent_process
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from ropewalk.train.launcher.process import die_with_parent

PRELOADED = "ropewalk.launch.sweep.preloaded"
THREADS = "OMP_NUM_THREADS"

Command = Callable[[list[str]], None]
"""What a process does with its words; a function of a module, since it is named to the server."""


def ropewalk(words: list[str]) -> None:
    """`ropewalk WORDS`. Raises: SystemExit."""
    from ropewalk.launch import cli

    cli.main(words)


def start(
    words: Sequence[str],
    log: Path,
    variables: Mapping[str, str],
    command: Command = ropewalk,
) -> ForkServerProcess:
    """`command(words)` in a process of its own, with all that it prints in `log`."""
    context = get_context("forkserver")
    context.set_forkserver_preload([PRELOADED] if command is ropewalk else [])
    # the server, whose libraries read the number of threads when they are loaded, has them too
    threads = {name: value for name, value in variables.items() if name == THREADS}
    arguments = (command, [*words], str(log), os.getcwd(), dict(variables))
    process = context.Process(target=_run, args=arguments)
    before = {name: os.environ.get(name) for name in threads}
    os.environ.update(threads)
    try:
        process.start()
    finally:
        _restore(before)
    return process


def _restore(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _run(
    command: Command, words: list[str], log: str, folder: str, variables: dict[str, str]
) -> None:
    """In the new process. A session of its own: Ctrl-C in the terminal goes to the sweep alone,
    which passes it on once."""
    die_with_parent()
    threading.Thread(target=_die_with_sweep, daemon=True).start()
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    os.environ.update(variables)
    os.chdir(folder)
    _print_to(log)
    command(words)


def _die_with_sweep() -> None:
    """The parent is the server, which outlives a sweep that was killed for as long as it has
    children."""
    sweep = parent_process()
    if sweep is not None:
        sweep.join()
        os.kill(os.getpid(), signal.SIGKILL)


def _print_to(log: str) -> None:
    """Attempts follow each other in one file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((file, 1), (file, 2), (nothing, 0)):
        os.dup2(source, target)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
