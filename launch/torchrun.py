"""`launch=torchrun`: this command starts torchrun, which starts the same command once a machine.

torchrun's rendezvous numbers the machines, so that all get the same words. Ranks are started by
ours, since its agent ends them within 30 s of a signal, and gives their exit codes as 1.
"""

import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ropewalk.conf.errors import FAILED, STOPPED, ConfigError, RopewalkError
from ropewalk.train.launcher import world as worlds
from ropewalk.train.launcher.process import die_with_parent

if TYPE_CHECKING:
    from ropewalk.conf.schema import Config

CODE_FILE = "ROPEWALK_EXIT_CODE_FILE"
SHUTDOWN_S = 3600
"""For the ranks to end their step and save, after a signal."""
MEETS = ("--rdzv", "--master", "--standalone")
"""Words of the user's that say where machines meet, so that none of ours do."""


def is_inside(env: Mapping[str, str]) -> bool:
    """Whether torchrun started this command."""
    return "TORCHELASTIC_RUN_ID" in env


def start(config: "Config") -> int:
    """Run torchrun to its end; returns the exit code of the command that it started here.

    Raises: ConfigError.
    """
    with tempfile.TemporaryDirectory(prefix="ropewalk-") as folder:
        file = Path(folder, "code")
        code = _wait(command(config, own_words()), {**os.environ, CODE_FILE: str(file)})
        with suppress(OSError, ValueError):
            return int(file.read_text())
        return code or FAILED


def own_words() -> list[str]:
    """Those of this command, without the launcher's."""
    words = sys.argv[1:]
    return words[: words.index("--")] if "--" in words else words


def shown(config: "Config") -> str:
    """The command line, to read. Raises: ConfigError."""
    return shlex.join(command(config, own_words()))


def command(config: "Config", words: Sequence[str]) -> list[str]:
    """torchrun's command line. Raises: ConfigError when machines would not meet."""
    launch = config.launch
    prefix = shlex.split(launch.prefix) if launch.prefix else []
    options = ["--nnodes", str(launch.nodes or 1), "--nproc-per-node", "1", "--max-restarts", "0"]
    options += ["--shutdown-timeout", str(SHUTDOWN_S)]
    if not any(word.startswith(MEETS) for word in launch.arguments):
        options += _meeting(config)
    program = ["--module", "ropewalk.launch.cli", *words]
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    return [*prefix, *torchrun, *options, *launch.arguments, *program]


def _meeting(config: "Config") -> list[str]:
    launch = config.launch
    if (launch.nodes or 1) == 1:
        return ["--standalone"]
    if launch.address is None:
        raise ConfigError(
            f"launch.address is unset; with launch=torchrun and launch.nodes {launch.nodes} the "
            "machines meet at one of them; set it to a name or an address of that one, or give "
            "torchrun's own words after --"
        )
    port = launch.port or worlds.World(job=config.name).ports[0]
    endpoint = f"{launch.address}:{port}"
    words = ["--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", config.name]
    words += ["--rdzv-conf", f"join_timeout={launch.join_timeout_s:.0f}"]
    return [*words, "--local-addr", _own_address(launch.address, port)]


def _own_address(host: str, port: int) -> str:
    """This machine's address on the way to `host`; nothing is sent. Raises: ConfigError."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ConfigError(
            f"launch.address is {host}; this machine has no way to it ({error.strerror or error}); "
            "set it to a name or an address of the first machine that all others reach"
        ) from error


def _wait(arguments: list[str], env: Mapping[str, str]) -> int:
    """The exit code; a signal asks torchrun to end, which asks the command that it started.

    torchrun knows no SIGUSR1, by which Slurm warns, and would end of it.
    """
    process = subprocess.Popen(
        arguments, env=env, start_new_session=True, preexec_fn=die_with_parent
    )

    def forward(*_: object) -> None:
        process.terminate()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
    former = {number: signal.signal(number, forward) for number in numbers}
    try:
        return process.wait()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextmanager
def recorded_exit_code() -> Iterator[None]:
    """Write the exit code of what runs in here for `start`, if that started it."""
    name = os.environ.pop(CODE_FILE, None)
    if is_inside(os.environ):
        die_with_parent()  # an agent that is killed ends nobody
    code = FAILED
    try:
        yield
        code = 0
    except RopewalkError as error:
        code = error.exit_code
        raise
    except KeyboardInterrupt:
        code = STOPPED
        raise
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else FAILED
        raise
    finally:
        if name is not None:
            with suppress(OSError):
                Path(name).write_text(str(code))
