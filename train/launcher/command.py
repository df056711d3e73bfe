"""How many ranks there are, and the command and environment that start them."""

import base64
import json
import os
import re
import socket
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.train.launcher.hostfile import first_host, hosts

LAUNCHER_VARIABLE = re.compile(
    r"(OMPI_|OPAL_|PMI_|PMIX_|I_MPI_|MPI_|MPIEXEC_|HYDI_|HYDRA_|MV2_COMM_|SLURM_|SLURMD_|PALS_|ALPS_"
    r"|TORCHELASTIC_|PET_)"
    r"|(RANK|LOCAL_RANK|GROUP_RANK|ROLE_RANK|ROLE_NAME|CROSS_RANK|CROSS_SIZE|LOCAL_SIZE"
    r"|WORLD_SIZE|LOCAL_WORLD_SIZE|GROUP_WORLD_SIZE|ROLE_WORLD_SIZE|NODE_RANK)$"
)
"""What Open MPI, MPICH, Intel MPI, MVAPICH, Slurm, Cray and torchrun set for their processes."""


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


def command(config: Config, run_dir: Path) -> list[str]:
    """DeepSpeed's launcher, for one process too. Ranks find their number in the environment.

    Its `runner` reads a hostfile and starts `launch` on each machine. On one machine it would only
    cost its imports; there `launcher/node.py` is `launch` with our handling of signals.
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
    worker = ["--module", "ropewalk.train", str(run_dir.resolve())]
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


def environment(config: Config) -> dict[str, str]:
    """The ranks' environment. On a CPU they share the cores, and waiting threads sleep.

    A thread that spins beside a busy neighbour makes every step several times slower, measured.
    """
    import torch

    env = without_leftovers(os.environ)
    if not torch.cuda.is_available():
        env["DS_ACCELERATOR"] = "cpu"
        threads = max(1, (os.cpu_count() or 1) // ranks_per_node(config))
        env.setdefault("OMP_NUM_THREADS", str(threads))
    env.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    env.setdefault("GOMP_SPINCOUNT", "0")
    env["TOKENIZERS_PARALLELISM"] = "false"
    # `python -m` would import a profile.py or queue.py of the working folder
    env["PYTHONSAFEPATH"] = "1"
    return env


def without_leftovers(env: Mapping[str, str]) -> dict[str, str]:
    """`env` without what another launcher tells its own processes, and without empty entries of
    PYTHONPATH, which mean the working folder.

    DeepSpeed and others read a rank's number from these variables, and would take the number of
    this command's process within a job of Slurm or MPI for that of a rank.
    """
    clean = {name: value for name, value in env.items() if not LAUNCHER_VARIABLE.match(name)}
    if "PYTHONPATH" in clean:
        entries = filter(None, clean["PYTHONPATH"].split(os.pathsep))
        clean["PYTHONPATH"] = os.pathsep.join(entries)
    return clean
