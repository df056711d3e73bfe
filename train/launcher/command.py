"""How many ranks there are, and the command that starts them."""

import base64
import json
import os
import socket
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.launchers import SUBMITTED
from ropewalk.conf.schema import Config
from ropewalk.train.launcher.hostfile import first_host, hosts
from ropewalk.train.launcher.layout import Layout
from ropewalk.train.launcher.leader import current
from ropewalk.train.launcher.world import FIRST_PORT, NUM_PORTS


def ranks_per_node(config: Config) -> int:
    """Ranks on each machine: as set, else one per GPU, at least one; under a launcher that started
    each rank by itself, as many as it did."""
    if (leader := current()) is not None and is_by_task():
        return leader.layout.processes
    if config.train.launcher.ranks_per_node is not None:
        return config.train.launcher.ranks_per_node
    import torch

    return max(1, torch.cuda.device_count())


def is_by_task() -> bool:
    """Whether a launcher started each rank's process by itself, as `srun --ntasks-per-node=8`."""
    return (leader := current()) is not None and leader.layout.is_by_task


def nodes(config: Config) -> int:
    """Machines of the ranks: those that follow this command, those of the job that it submits, or
    those of the hostfile.

    Raises: ConfigError when the hostfile does not exist: DeepSpeed would train on this machine
    alone.
    """
    if (leader := current()) is not None:
        return leader.layout.nodes
    if config.launch.kind in SUBMITTED:
        return config.launch.nodes or 1
    if config.train.launcher.hostfile is None:
        return 1
    file = Path(config.train.launcher.hostfile).expanduser()
    if not file.is_file():
        raise ConfigError(
            f"train.launcher.hostfile is {config.train.launcher.hostfile}; no such file; correct "
            "the path, or unset it"
        )
    return len(hosts(file.read_text()))


def is_on_several_machines(config: Config) -> bool:
    """Whether the ranks are: a hostfile counts as several, whatever it names."""
    leader = current()
    return config.train.launcher.hostfile is not None if leader is None else leader.layout.nodes > 1


def world_size(config: Config) -> int:
    """Ranks on all machines. Raises: ConfigError as `nodes`."""
    return nodes(config) * ranks_per_node(config)


def on_this_machine(config: Config) -> bool:
    """Whether ranks run here, so that devices and kernels of this machine are theirs."""
    if config.launch.kind in SUBMITTED:
        return False
    return config.train.launcher.hostfile is None or current() is not None


def command(config: Config, run_dir: Path, module: str = "ropewalk.train") -> list[str]:
    """What starts the ranks, one process too. They find their number in the environment.

    DeepSpeed's `runner` reads a hostfile and starts its `launch` on each machine. On one machine,
    and on each of those that follow this command, `launcher/node.py` takes the same arguments and
    gives the ranks the same environment.
    """
    port, count = master_port(config, run_dir), ranks_per_node(config)
    if (leader := current()) is not None:
        start = Start(module, run_dir.resolve(), str(leader.world.address), port, count)
        return start.command(leader.layout, process=0)
    hostfile = config.train.launcher.hostfile
    if hostfile is None:
        start = Start(module, run_dir.resolve(), "127.0.0.1", port, count)
        return start.command(ONE_MACHINE, process=0)
    file = str(Path(hostfile).expanduser())
    launcher = ["deepspeed.launcher.runner", *config.launch.arguments, "--hostfile", file]
    launcher += ["--num_gpus", str(count)]
    return [sys.executable, "-m", *launcher, *_options(port), *_worker(module, run_dir.resolve())]


ONE_MACHINE = Layout((("localhost", (0,)),))


@dataclass(frozen=True)
class Start:
    """One start of ranks on all machines of a layout."""

    module: str
    run_dir: Path
    address: str
    port: int
    ranks_per_node: int

    def command(self, layout: Layout, process: int) -> list[str]:
        """What process number `process` of the launcher runs."""
        node, number = layout.position(process)
        launcher = ["ropewalk.train.launcher.node", "--world_info"]
        launcher += [world_info(self.ranks_per_node, layout.nodes), "--node_rank", str(node)]
        launcher += ["--master_addr", self.address]
        if layout.is_by_task:
            launcher += ["--local_rank", str(number)]
        worker = _worker(self.module, self.run_dir)
        return [sys.executable, "-m", *launcher, *_options(self.port), *worker]


def _options(port: int) -> list[str]:
    return ["--master_port", str(port), "--log_level", "error", "--no_local_rank"]


def _worker(module: str, run_dir: Path) -> list[str]:
    return ["--module", module, str(run_dir)]


def world_info(count: int, num_nodes: int = 1) -> str:
    """The devices of `num_nodes` machines in `launch`'s encoding, one per rank.

    CUDA_VISIBLE_DEVICES is respected: each machine gives its own to itself.
    """
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    devices = visible[:count] if len(visible) >= count else list(range(count))
    names = ["localhost", *(f"node-{n}" for n in range(1, num_nodes))]
    return base64.urlsafe_b64encode(json.dumps(dict.fromkeys(names, devices)).encode()).decode()


def master_port(config: Config, run_dir: Path) -> int:
    """Where the ranks meet on the first host: as set, else one that is free there.

    What is free on another host cannot be seen from here. There a run's name chooses one that the
    system deals out to nobody, so that two runs on a host seldom choose alike.
    """
    launcher = config.train.launcher
    if launcher.master_port is not None:
        return launcher.master_port
    if on_this_machine(config) or _is_this_machine(first_host(str(launcher.hostfile))):
        return _free_port()
    return FIRST_PORT + zlib.crc32(str(run_dir.resolve()).encode()) % NUM_PORTS


def _is_this_machine(host: str) -> bool:
    return host in ("localhost", "127.0.0.1", socket.gethostname(), socket.getfqdn())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
