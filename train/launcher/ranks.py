"""Run the ranks to their end, from the command's process."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.records import remove
from ropewalk.conf.errors import STOPPED, RopewalkError, Stopped
from ropewalk.conf.schema import Config
from ropewalk.train.launcher import failure
from ropewalk.train.launcher.command import Start, command, on_this_machine, ranks_per_node
from ropewalk.train.launcher.environment import environment, sent_to_hosts
from ropewalk.train.launcher.layout import Layout
from ropewalk.train.launcher.leader import Leader, current
from ropewalk.train.launcher.world import World

STOP_FILE = "stop"
"""In the folder of the ranks: asks them to stop in good order."""
MODULES = ("ropewalk.train", "ropewalk.eval", "ropewalk.launch.check")
"""What ranks run."""


def launch(config: Config, run_dir: Path, temporary: Path) -> None:
    """Run the ranks to their end. SIGINT, SIGTERM, SIGHUP and Slurm's SIGUSR1 ask them to save and
    stop.

    Raises: Stopped, or RopewalkError with the ranks' exit code.
    """
    remove(temporary / failure.NOTE)
    with started(config, run_dir, temporary) as ranks, _stop_signals(ranks, temporary / STOP_FILE):
        code = ranks.wait()
    if code:
        raise _error_of(config, temporary, code, ranks.lost)


@dataclass
class Ranks:
    """The launcher of this machine's ranks, and through the leader those of the others."""

    process: subprocess.Popen[Any]
    leader: Leader | None

    def wait(self) -> int:
        """The exit code of all."""
        code = self.process.wait()
        return code if self.leader is None else self.leader.code_of(code)

    @property
    def lost(self) -> str:
        """Which machine was lost, and how; empty for none."""
        return "" if self.leader is None else self.leader.lost

    def kill(self) -> None:
        """End those of this machine at once; those of others lose them, and end."""
        if self.process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


@contextmanager
def started(
    config: Config,
    run_dir: Path,
    temporary: Path,
    module: str | None = None,
    **options: Any,
) -> Iterator[Ranks]:
    """The ranks of this machine, and of the others that this command leads; those that are left at
    the end are killed.

    `temporary`: where the first failure is noted. `module`: what a rank runs, if not the training.
    `options`: of Popen.
    """
    leader = current()
    with environment_for(config, temporary) as env:
        if leader is not None:
            env = {**env, **interface_variable(env, leader.peers.interface())}
        arguments = command(config, run_dir, *([module] if module else []))
        # Slurm sends it to every process of a step; a launcher inherits this and must live on
        usr1_handler = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        process = subprocess.Popen(arguments, env=env, start_new_session=True, **options)
        signal.signal(signal.SIGUSR1, usr1_handler)
        ranks = Ranks(process, leader)
        if leader is not None:
            leader.start(_message(config, arguments, module, temporary), ranks.kill)
        try:
            yield ranks
        finally:
            ranks.kill()
            process.wait()
            if leader is not None:
                leader.kill_ranks = None


def _message(
    config: Config, arguments: Sequence[str], module: str | None, temporary: Path
) -> dict[str, Any]:
    """For `start_here` of the other machines: the same start."""
    return {
        "module": module or "ropewalk.train",
        "run_dir": arguments[-1],
        "port": int(arguments[arguments.index("--master_port") + 1]),
        "ranks_per_node": ranks_per_node(config),
        "temporary": str(temporary.resolve()),
    }


def interface_variable(env: Mapping[str, str], interface: str) -> dict[str, str]:
    """gloo would take the interface of this machine's own name, which other machines may not
    reach; the commands have met by one that they do."""
    name = "GLOO_SOCKET_IFNAME"
    return {name: interface} if interface and not env.get(name) else {}


def start_here(
    config: Config, message: Mapping[str, Any], layout: Layout, world: World
) -> subprocess.Popen[bytes]:
    """The ranks of this machine, as the first one's message says. Raises: RopewalkError."""
    run_dir, temporary = Path(message["run_dir"]), Path(message["temporary"])
    runs = Path(config.runs_dir).expanduser().resolve()
    if message["module"] not in MODULES or not run_dir.is_relative_to(runs):
        raise RopewalkError(f"{message['module']} in {run_dir} is no start of ranks in {runs}")
    start = Start(
        message["module"], run_dir, str(world.address), message["port"], message["ranks_per_node"]
    )
    env = environment() | {failure.FOLDER_VARIABLE: str(temporary)}
    env |= interface_variable(env, message["interface"])
    usr1_handler = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        arguments = start.command(layout, world.rank)
        return subprocess.Popen(arguments, env=env, start_new_session=True)
    finally:
        signal.signal(signal.SIGUSR1, usr1_handler)


def environment_for(config: Config, temporary: Path) -> AbstractContextManager[Mapping[str, str]]:
    """The variables of the ranks' launcher. `temporary`: where the first failure is noted."""
    env = environment() | {failure.FOLDER_VARIABLE: str(temporary.resolve())}
    if on_this_machine(config):
        return nullcontext(env)
    return sent_to_hosts(env, temporary)


@contextmanager
def _stop_signals(ranks: Ranks, stop_file: Path) -> Iterator[None]:
    """Signals ask the ranks to stop in good order; the second one ends them at once."""
    requests = []

    def request_stop(*_: object) -> None:
        requests.append(True)
        if len(requests) > 1:
            ranks.kill()
        stop_file.touch()
        with suppress(OSError):  # the terminal may be closed
            message = "stopping after this step with a checkpoint (once more: at once)"
            print(message, file=sys.stderr, flush=True)

    signals = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # which nohup sets
        signals.append(signal.SIGHUP)
    handlers = {number: signal.signal(number, request_stop) for number in signals}
    if ranks.leader is not None:  # a request that came to another machine
        ranks.leader.on_stop = stop_file.touch
    try:
        yield
    finally:
        if ranks.leader is not None:
            ranks.leader.on_stop = None
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _error_of(config: Config, temporary: Path, code: int, lost: str = "") -> RopewalkError:
    """The ranks' exit code as an error. `lost`: which machine was lost, and how.

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
    if lost:
        message += f"; {lost}; run the same command again to resume"
        return RopewalkError(message)
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
