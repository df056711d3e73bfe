"""Run the ranks to their end, from the command's process."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.records import remove
from ropewalk.conf.errors import STOPPED, RopewalkError, Stopped
from ropewalk.conf.schema import Config
from ropewalk.train.launcher import failure
from ropewalk.train.launcher.command import command
from ropewalk.train.launcher.environment import environment, sent_to_hosts

STOP_FILE = "stop"
"""In the folder of the ranks: asks them to stop in good order."""


def launch(config: Config, run_dir: Path, temporary: Path) -> None:
    """Run the ranks to their end. SIGINT, SIGTERM, SIGHUP and Slurm's SIGUSR1 ask them to save and
    stop.

    Raises: Stopped, or RopewalkError with the ranks' exit code.
    """
    remove(temporary / failure.NOTE)
    with environment_for(config, temporary) as env:
        code = _run(command(config, run_dir), env, temporary)
    if code:
        raise _error_of(config, temporary, code)


def environment_for(config: Config, temporary: Path) -> AbstractContextManager[Mapping[str, str]]:
    """The variables of the ranks' launcher. `temporary`: where the first failure is noted."""
    env = environment() | {failure.FOLDER_VARIABLE: str(temporary.resolve())}
    if config.train.launcher.hostfile is None:
        return nullcontext(env)
    return sent_to_hosts(env, temporary)


def _run(arguments: list[str], env: Mapping[str, str], temporary: Path) -> int:
    """Wait for the process's exit code; signals ask it to stop meanwhile."""
    # Slurm sends it to every process of a step; DeepSpeed's launcher inherits this and must live on
    usr1_handler = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    process = subprocess.Popen(arguments, env=env, start_new_session=True)

    def request_stop(*_: object) -> None:
        if (temporary / STOP_FILE).exists():  # the second request ends them at once
            os.killpg(process.pid, signal.SIGKILL)
        (temporary / STOP_FILE).touch()
        with suppress(OSError):  # the terminal may be closed
            message = "stopping after this step with a checkpoint (once more: at once)"
            print(message, file=sys.stderr, flush=True)

    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup sets
        signals.append(signal.SIGHUP)
    handlers = {number: signal.signal(number, request_stop) for number in signals}
    handlers[signal.SIGUSR1] = usr1_handler
    try:
        return process.wait()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _error_of(config: Config, temporary: Path, code: int) -> RopewalkError:
    """The ranks' exit code as an error.

    A rank's note overrules the code: the launcher may have ended that rank with another on its way
    out.
    """
    note = failure.read(temporary)
    code = int(note["exit_code"]) if note else code
    # ended by the signal itself, before a rank could notice it
    is_early = code in (-signal.SIGTERM, 256 - signal.SIGTERM) and (temporary / STOP_FILE).exists()
    if code == STOPPED or is_early:
        moment = " before its first step" if is_early else ""
        return Stopped(f"train stopped in good order{moment}; run the same command again to resume")
    first = f"; {failure.rank_name(note)} was the first" if note else ""
    message = f"train: the ranks ended with exit code {code}{first}; their messages are above"
    is_killed = note is None or "signal" in note
    error = RopewalkError(killed(code, note=note) if is_killed else message)
    error.exit_code = code if code in (2, 3) else 1
    return error


def killed(code: int, stage: str = "train", note: dict[str, Any] | None = None) -> str:
    """The message for a rank that a signal ended: of its launcher's note, else of the exit code.

    `code`: -N or 256 - N for signal N.
    """
    number = note["signal"] if note else 256 - code if code > 128 else -code
    if number not in set(signal.Signals):
        return f"{stage}: the ranks ended with exit code {code}; their messages are above"
    name = failure.rank_name(note) if note else "a rank"
    reason = failure.by_signal(number)
    return f"{stage}: {name} was {reason}; run the same command again to resume"
