"""How many ranks there are, and the command that starts them."""

import base64
import json
import os
import socket
import sys
import zlib
from pathlib import Path

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.train.launcher.hostfile import first_host, hosts


def ranks_per_node(config: Config) -> int:
    """Ranks on this machine: as set, else one per GPU, at least one."""
    import torch

    return config.train.launcher.ranks_per_node or max(1, torch.cuda.device_count())


def world_size(config: Config) -> int:
    """Ranks on all machines.

    Raises: ConfigError when the hostfile does not exist: DeepSpeed would train on this machine
    alone.
    """
    if config.train.launcher.hostfile is None:
        return ranks_per_node(config)
    file = Path(config.train.launcher.hostfile).expanduser()
    if not file.is_file():
        raise ConfigError(
            f"train.launcher.hostfile is {config.train.launcher.hostfile}; no such file; correct "
            "the path, or unset it"
        )
    return len(hosts(file.read_text())) * ranks_per_node(config)


def command(config: Config, run_dir: Path, module: str = "ropewalk.train") -> list[str]:
    """What starts the ranks, one process too. They find their number in the environment.

    DeepSpeed's `runner` reads a hostfile and starts its `launch` on each machine. On one machine
    `launcher/node.py` takes the same arguments and gives the ranks the same environment.
    """
    hostfile, count = config.train.launcher.hostfile, ranks_per_node(config)
    if hostfile:
        file = str(Path(hostfile).expanduser())
        launcher = ["deepspeed.launcher.runner", "--hostfile", file, "--num_gpus", str(count)]
    else:
        launcher = ["ropewalk.train.launcher.node", "--world_info", world_info(count)]
        launcher += ["--master_addr", "127.0.0.1"]
    options = [
        "--master_port",
        str(master_port(config, run_dir)),
        "--log_level",
        "error",
        "--no_local_rank",
    ]
    worker = ["--module", module, str(run_dir.resolve())]
    return [sys.executable, "-m", *launcher, *options, *worker]


def world_info(count: int) -> str:
    """This machine's devices in `launch`'s encoding, one per rank.

    CUDA_VISIBLE_DEVICES is respected.
    """
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    devices = visible[:count] if len(visible) >= count else list(range(count))
    return base64.urlsafe_b64encode(json.dumps({"localhost": devices}).encode()).decode()


FIRST_PORT, NUM_PORTS = 29400, 3100
"""Below the ports that systems deal out by themselves (32768 and up on Linux)."""


def master_port(config: Config, run_dir: Path) -> int:
    """Where the ranks meet on the first host: as set, else one that is free there.

    What is free on another host cannot be seen from here. There a run's name chooses one that the
    system deals out to nobody, so that two runs on a host seldom choose alike.
    """
    launcher = config.train.launcher
    if launcher.master_port is not None:
        return launcher.master_port
    if launcher.hostfile is None or _is_this_machine(first_host(launcher.hostfile)):
        return _free_port()
    return FIRST_PORT + zlib.crc32(str(run_dir.resolve()).encode()) % NUM_PORTS


def _is_this_machine(host: str) -> bool:
    return host in ("localhost", "127.0.0.1", socket.gethostname(), socket.getfqdn())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
