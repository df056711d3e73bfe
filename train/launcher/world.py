"""The processes among which a launcher started this one, from its variables.

No other file reads the variables of torchrun, DeepSpeed, Slurm, MPI, Kubernetes or SkyPilot.
"""

import os
import re
import socket
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ropewalk.conf.errors import ConfigError
from ropewalk.train.launcher.hostfile import hosts

if TYPE_CHECKING:
    from ropewalk.conf.schema import Config

Environment = Mapping[str, str]
FIRST_PORT, NUM_PORTS = 29400, 3100
"""Below the ports that systems deal out by themselves (32768 and up on Linux)."""
TRIED_PORTS = 8
"""From the job's own on, where a port was not set."""


@dataclass(frozen=True)
class World:
    """The processes of one start, numbered by their launcher. `size` 1: this command is alone."""

    launcher: str = ""
    rank: int = 0
    size: int = 1
    node: int | None = None
    """The number of this machine, where the launcher tells it; else its name tells it apart."""
    nodes: int | None = None
    local_rank: int = 0
    address: str | None = None
    """The machine of rank 0, as the launcher tells it."""
    port: int | None = None
    """Free for us on that machine. None: one that `job` chooses."""
    job: str = ""
    """The same for all processes of this start, another for the next job."""
    names: str = ""
    """The machines, as the launcher lists them."""

    @property
    def ports(self) -> list[int]:
        """Those of rank 0's machine at which it may wait, in order."""
        if self.port is not None:
            return [self.port]
        first = zlib.crc32(self.job.encode()) % (NUM_PORTS - TRIED_PORTS)
        return [FIRST_PORT + first + n for n in range(TRIED_PORTS)]


ALONE = World()


def of(config: "Config", env: Environment = os.environ, host: str = "") -> World:
    """The world of this command under `config.launch`.

    `host`: this machine's name, as in a hostfile. Raises: ConfigError where the launcher's
    variables, or `launch`, do not say what all processes need.
    """
    launch = config.launch
    if launch.nodes == 1 and launch.kind == "local":
        return ALONE
    world = read(env)
    if not world.launcher and launch.kind == "external":
        world = _of_hostfile(config, host or socket.gethostname()) or world
    if not world.launcher:
        _refuse_missing(config)
    if world.size == 1:
        return ALONE
    _refuse_other_count(config, world)
    if launch.kind == "torchrun":  # `launch` says where its agents meet
        launch = replace(launch, address=None, port=None)
    address = launch.address or world.address
    if address is None:
        raise ConfigError(
            f"launch.address is unset; {world.launcher} does not say which machine is the first; "
            "set it, or MASTER_ADDR, to a name or an address of that machine"
        )
    job = f"{world.job}/{config.name}"
    return replace(world, address=address, port=launch.port or world.port, job=job)


def read(env: Environment) -> World:
    """The world that a launcher's variables say. Inner launchers come first: torchrun inherits
    srun's, and mpirun starts its own daemons by srun. Raises: ConfigError."""
    return next(filter(None, (reader(env) for reader in READERS)), ALONE)


def _torchrun(env: Environment) -> World | None:
    """Its MASTER_PORT is in use: the agent's own store waits there."""
    if "TORCHELASTIC_RUN_ID" not in env or "RANK" not in env:
        return None
    job = f"{env['TORCHELASTIC_RUN_ID']}/{env.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    return World(
        "torchrun",
        *_numbers(env, "RANK", "WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "LOCAL_RANK"),
        address=env.get("MASTER_ADDR"),
        job=job,
    )


def _ranks(env: Environment) -> World | None:
    """DeepSpeed's launcher, and whoever sets what torch.distributed reads."""
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= env.keys():
        return None
    node, nodes = ("CROSS_RANK", "CROSS_SIZE") if "CROSS_RANK" in env else ("", "")
    return _with_master(
        env,
        World(
            "a launcher that sets RANK",
            *_numbers(env, "RANK", "WORLD_SIZE", node, nodes, "LOCAL_RANK"),
        ),
    )


def _open_mpi(env: Environment) -> World | None:
    if "OMPI_COMM_WORLD_RANK" not in env:
        return None
    prefix = "OMPI_COMM_WORLD_"
    numbers = _numbers(env, f"{prefix}RANK", f"{prefix}SIZE", "", "", f"{prefix}LOCAL_RANK")
    job = env.get("PMIX_NAMESPACE") or env.get("OMPI_MCA_ess_base_jobid", "")
    return _with_master(env, World("Open MPI's mpirun", *numbers, job=job))


def _hydra(env: Environment) -> World | None:
    """MPICH and Intel MPI."""
    if not {"PMI_RANK", "MPI_LOCALRANKID"} <= env.keys():
        return None
    numbers = _numbers(env, "PMI_RANK", "PMI_SIZE", "", "", "MPI_LOCALRANKID")
    return _with_master(env, World("MPICH's mpirun", *numbers))


def _slurm(env: Environment) -> World | None:
    """A step of srun. The shell of a batch script has SLURM_PROCID too, and no step."""
    if not {"SLURM_STEP_ID", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"} <= env.keys():
        return None
    numbers = _numbers(
        env,
        *("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_NODEID", "SLURM_STEP_NUM_NODES"),
        "SLURM_LOCALID",
    )
    names = env.get("SLURM_STEP_NODELIST", "")
    first = env.get("MASTER_ADDR") or first_of_node_list(names) or None
    job = f"{env.get('SLURM_JOB_ID')}.{env['SLURM_STEP_ID']}"
    return World("srun", *numbers, address=first, port=_port(env), job=job, names=names)


def _pods(env: Environment) -> World | None:
    """A TrainJob of Kubeflow: one process a pod."""
    if not {"PET_NNODES", "PET_NODE_RANK"} <= env.keys():
        return None
    rank, nodes = _number(env, "PET_NODE_RANK"), _number(env, "PET_NNODES")
    port = _number(env, "PET_MASTER_PORT") if "PET_MASTER_PORT" in env else None
    address = env.get("PET_MASTER_ADDR")
    return World("a TrainJob", rank, nodes, rank, nodes, 0, address, port, address or "")


def _sky(env: Environment) -> World | None:
    if not {"SKYPILOT_NODE_RANK", "SKYPILOT_NUM_NODES"} <= env.keys():
        return None
    rank, nodes = _number(env, "SKYPILOT_NODE_RANK"), _number(env, "SKYPILOT_NUM_NODES")
    addresses = env.get("SKYPILOT_NODE_IPS", "").split()
    job = env.get("SKYPILOT_TASK_ID", "")
    first = addresses[0] if addresses else None
    names = ", ".join(addresses)
    return World("SkyPilot", rank, nodes, rank, nodes, 0, first, job=job, names=names)


def _nodes(env: Environment) -> World | None:
    """NNODES and NODE_RANK, as scripts give them to torchrun."""
    if not {"NNODES", "NODE_RANK"} <= env.keys():
        return None
    rank, nodes = _number(env, "NODE_RANK"), _number(env, "NNODES")
    return _with_master(env, World("NNODES", rank, nodes, rank, nodes))


READERS: tuple[Callable[[Environment], World | None], ...] = (
    *(_torchrun, _ranks, _open_mpi, _hydra, _slurm, _pods, _sky, _nodes),
)


def _with_master(env: Environment, world: World) -> World:
    return replace(world, address=env.get("MASTER_ADDR"), port=_port(env))


def _port(env: Environment) -> int | None:
    return _number(env, "MASTER_PORT") if "MASTER_PORT" in env else None


def _numbers(
    env: Environment, rank: str, size: str, node: str, nodes: str, local_rank: str
) -> tuple[int, int, int | None, int | None, int]:
    """The first five fields after the launcher's name, from variables of these names."""
    return (
        _number(env, rank),
        _number(env, size),
        _number(env, node) if node else None,
        _number(env, nodes) if nodes else None,
        _number(env, local_rank),
    )


def _number(env: Environment, name: str) -> int:
    value = env.get(name)
    if value is None or not value.isdecimal():
        raise ConfigError(
            f"{name} is {'unset' if value is None else value}; beside the launcher's other "
            "variables it must be a whole number; start the command by that launcher, or set "
            "launch.nodes=1 for this machine alone"
        )
    return int(value)


def first_of_node_list(names: str) -> str:
    """The first machine of Slurm's `gpu[03-07,9],cpu-1`: `gpu03`."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", names)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first[0] if first else "")


def _of_hostfile(config: "Config", host: str) -> World | None:
    """Each host of a hostfile runs the same command: this machine is one of its lines."""
    path = config.train.launcher.hostfile
    if path is None:
        return None
    text = Path(path).expanduser().read_text(encoding="utf-8")
    names = [line.split()[0] for line in hosts(text)]
    own = [n for n, name in enumerate(names) if name in (host, host.partition(".")[0])]
    own = own or [n for n, name in enumerate(names) if _is_own_address(name)]
    if not own:
        raise ConfigError(
            f"train.launcher.hostfile is {path}; with launch=external it must name this machine, "
            f"{host}; it names {', '.join(names[:8])}; correct it"
        )
    count, listed = len(names), ", ".join(names)
    return World(
        "the hostfile", own[0], count, own[0], count, 0, names[0], job=listed, names=listed
    )


def _is_own_address(name: str) -> bool:
    """Whether a socket of this machine may have the address of `name`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(name, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True


def _refuse_missing(config: "Config") -> None:
    """For a command that no launcher started."""
    launch = config.launch
    if launch.kind == "external":
        raise ConfigError(
            "launch is external; no variables of a launcher are set (RANK, SLURM_PROCID, "
            "OMPI_COMM_WORLD_RANK, PET_NODE_RANK, NODE_RANK); start the command by one, name "
            "train.launcher.hostfile, or leave launch=external out"
        )
    if launch.kind == "local" and (launch.nodes or 1) > 1:
        raise ConfigError(
            f"launch.nodes is {launch.nodes}; no launcher started this command, which runs on "
            "this machine alone; start it by torchrun or srun on each machine, or choose "
            "launch=torchrun or launch=slurm"
        )


def _refuse_other_count(config: "Config", world: World) -> None:
    hostfile = config.train.launcher.hostfile
    if hostfile is not None and config.launch.kind == "local":
        raise ConfigError(
            f"train.launcher.hostfile is {hostfile}; {world.launcher} has started this command on "
            "every machine already; unset it, or set launch.nodes=1 to start the others from here"
        )
    if config.launch.nodes is not None and world.nodes not in (None, config.launch.nodes):
        raise ConfigError(
            f"launch.nodes is {config.launch.nodes}; {world.launcher} started this command on "
            f"{world.nodes}; the numbers must be equal; correct one, or unset launch.nodes"
        )
    if not 0 <= world.rank < world.size:
        raise ConfigError(
            f"the rank of {world.launcher} is {world.rank}; it must be below the number of its "
            f"processes, {world.size}; correct the variables"
        )
