"""What each launcher sets is read alike. torchrun and DeepSpeed's launcher are run; the variables
of Open MPI, MPICH, Slurm, Kubeflow and SkyPilot are those of their documentation."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ropewalk.conf.errors import ConfigError
from ropewalk.launch.config.compose import compose
from ropewalk.train.launcher import world as worlds
from ropewalk.train.launcher.command import world_info
from ropewalk.train.launcher.world import ALONE, World

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "t1", "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_USE_AGENT_STORE": "True", "RANK": "1", "LOCAL_RANK": "0", "GROUP_RANK": "1",
    "ROLE_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "GROUP_WORLD_SIZE": "2",
    "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "43211", "OMP_NUM_THREADS": "1",
}  # fmt: skip
DEEPSPEED = {
    "RANK": "9", "LOCAL_RANK": "1", "WORLD_SIZE": "16", "LOCAL_SIZE": "8", "CROSS_RANK": "1",
    "CROSS_SIZE": "2", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500",
}  # fmt: skip
OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "OMPI_COMM_WORLD_NODE_RANK": "1", "OMPI_UNIVERSE_SIZE": "4",
    "PMIX_NAMESPACE": "2895773697", "PMIX_RANK": "3", "MASTER_ADDR": "10.0.0.1",
}  # fmt: skip
HYDRA = {
    "PMI_RANK": "2", "PMI_SIZE": "4", "PMI_FD": "6", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2",
    "MASTER_ADDR": "10.0.0.1",
}  # fmt: skip
SLURM = {
    "SLURM_JOB_ID": "71", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_NNODES": "2",
    "SLURM_STEP_NUM_NODES": "2", "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_NODELIST": "gpu[03-04]", "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_GPUS_ON_NODE": "8",
}  # fmt: skip
BATCH_SHELL = {
    "SLURM_JOB_ID": "71", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
    "SLURM_NTASKS": "2", "SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "gpu[03-04]",
}  # fmt: skip
TRAIN_JOB = {
    "PET_NNODES": "4", "PET_NPROC_PER_NODE": "8", "PET_NODE_RANK": "2",
    "PET_MASTER_ADDR": "llama-node-0-0.llama", "PET_MASTER_PORT": "29400",
}  # fmt: skip
SKY = {
    "SKYPILOT_NODE_RANK": "1", "SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_IPS": "10.1.0.4\n10.1.0.5",
    "SKYPILOT_TASK_ID": "sky-2026-11-30-1", "SKYPILOT_NUM_GPUS_PER_NODE": "8",
}  # fmt: skip
SCRIPT = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "node-a", "MASTER_PORT": "6000"}
READ: dict[str, tuple[Mapping[str, str], World]] = {
    "torchrun": (TORCHRUN, World("torchrun", 1, 2, 1, 2, 0, "10.0.0.1", None, "t1/0")),
    "deepspeed": (
        DEEPSPEED,
        World("a launcher that sets RANK", 9, 16, 1, 2, 1, "10.0.0.1", 29500),
    ),
    "mpirun": (
        OPEN_MPI,
        World("Open MPI's mpirun", 3, 4, None, None, 1, "10.0.0.1", None, "2895773697"),
    ),
    "mpich": (HYDRA, World("MPICH's mpirun", 2, 4, None, None, 0, "10.0.0.1")),
    "srun": (SLURM, World("srun", 1, 2, 1, 2, 0, "gpu03", None, "71.0", "gpu[03-04]")),
    "a task a GPU": (
        {**SLURM, "SLURM_PROCID": "11", "SLURM_STEP_NUM_TASKS": "16", "SLURM_LOCALID": "3"},
        World("srun", 11, 16, 1, 2, 3, "gpu03", None, "71.0", "gpu[03-04]"),
    ),
    "TrainJob": (
        TRAIN_JOB,
        World(
            *("a TrainJob", 2, 4, 2, 4, 0, "llama-node-0-0.llama", 29400, "llama-node-0-0.llama")
        ),
    ),
    "SkyPilot": (
        SKY,
        World(
            *("SkyPilot", 1, 2, 1, 2, 0, "10.1.0.4", None, "sky-2026-11-30-1"), "10.1.0.4, 10.1.0.5"
        ),
    ),
    "a script": (SCRIPT, World("NNODES", 1, 2, 1, 2, 0, "node-a", 6000)),
    "nothing": ({"HOME": "/root", "MASTER_ADDR": "x"}, ALONE),
    "the shell of a batch script": (BATCH_SHELL, ALONE),
    "torchrun inside srun": (
        {**SLURM, **TORCHRUN},
        World("torchrun", 1, 2, 1, 2, 0, "10.0.0.1", None, "t1/0"),
    ),
    "mpirun whose daemons srun started": (
        {**SLURM, **OPEN_MPI},
        World("Open MPI's mpirun", 3, 4, None, None, 1, "10.0.0.1", None, "2895773697"),
    ),
}


@pytest.mark.parametrize(("env", "expected"), READ.values(), ids=list(READ))
def test_the_world_of_a_launchers_variables(env: Mapping[str, str], expected: World) -> None:
    assert worlds.read(env) == expected


SHOW = """
import json, os, sys
from dataclasses import asdict
from ropewalk.train.launcher import world
with open(sys.argv[1] + "/" + os.environ["RANK"], "w") as file:
    json.dump(asdict(world.read(os.environ)), file)
"""


def shown(folder: Path, *command: str) -> list[dict[str, Any]]:
    (folder / "show.py").write_text(SHOW)
    env = {name: v for name, v in os.environ.items() if not name.startswith("TORCHELASTIC")}
    env["PYTHONPATH"] = str(folder)
    done = subprocess.run([sys.executable, "-m", *command, str(folder)], env=env, timeout=120)
    assert done.returncode == 0
    return [json.loads((folder / rank).read_text()) for rank in ("0", "1")]


def test_of_a_real_torchrun(tmp_path: Path) -> None:
    options = ["--standalone", "--nproc-per-node", "2", "--rdzv-id", "r7"]
    read = shown(tmp_path, "torch.distributed.run", *options, "--module", "show")
    for rank, world in enumerate(read):
        assert world["address"] and world["job"].endswith("/0")
        world |= {"address": "", "job": ""}
        assert world == asdict(World("torchrun", rank, 2, 0, 1, rank, "", None, ""))


def test_of_deepspeeds_real_launcher(tmp_path: Path) -> None:
    options = ["--world_info", world_info(1, 2), "--master_addr", "h", "--master_port", "2300"]
    options += ["--no_local_rank", "--module", "show"]
    (tmp_path / "0").write_text("{}")
    _, read = shown(tmp_path, "deepspeed.launcher.launch", "--node_rank", "1", *options)
    assert read == asdict(World("a launcher that sets RANK", 1, 2, 1, 2, 0, "h", 2300))


@pytest.mark.parametrize(
    ("names", "first"),
    [
        ("gpu[03-07,9],cpu-1", "gpu03"),
        ("cpu-1,gpu[03-07]", "cpu-1"),
        ("n", "n"),
        ("r[1-2]n[08-10]", "r1n08"),
        ("a1.site,b", "a1.site"),
        ("", ""),
    ],
)
def test_the_first_machine_of_slurms_list(names: str, first: str) -> None:
    """As `scontrol show hostnames` expands them: the syntax of slurm.conf(5)."""
    assert worlds.first_of_node_list(names) == first


def test_ports_are_the_jobs_own_unless_they_are_told() -> None:
    """Below those that Linux deals out, so that none is taken by a connection of chance."""
    ports = [World(job=f"job {n}").ports for n in range(200)]
    assert all(29400 <= port < 32500 for some in ports for port in some)
    assert len({some[0] for some in ports}) > 180 and World(job="job 3").ports == ports[3]
    assert World(job="job 3", port=7000).ports == [7000]


@pytest.mark.parametrize(
    ("env", "words", "line"),
    [
        ({}, ["launch=external"], "launch is external; no variables of a launcher are set"),
        ({}, ["launch.nodes=2"], "launch.nodes is 2; no launcher started this command"),
        (TORCHRUN, ["launch.nodes=3"], "launch.nodes is 3; torchrun started this command on 2"),
        (
            {k: v for k, v in OPEN_MPI.items() if k != "MASTER_ADDR"},
            [],
            "launch.address is unset; Open MPI's mpirun does not say which machine is the first",
        ),
        ({**SLURM, "SLURM_PROCID": "x"}, [], "SLURM_PROCID is x; beside the launcher's other var"),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, [], "the rank of a launcher that"),
        (SLURM, ["train.launcher.hostfile=./hosts"], "train.launcher.hostfile is ./hosts; srun"),
    ],
)
def test_what_no_process_could_start_with_is_refused(
    env: Mapping[str, str], words: list[str], line: str
) -> None:
    if "MASTER_ADDR" not in env and "RANK" in env:
        words = [*words, "launch.address=h"]
    with pytest.raises(ConfigError) as error:
        worlds.of(compose(["recipe=demo", *words]), env)
    assert str(error.value).startswith(line) and str(error.value).count(";") >= 2


def test_a_launcher_of_one_process_is_a_launcher() -> None:
    """The job of one node, whose command says launch=external too."""
    env = {**SLURM, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}
    assert worlds.of(compose(["recipe=demo", "launch=external"]), env) == ALONE


def test_one_node_is_this_machine_whatever_is_set() -> None:
    assert worlds.of(compose(["recipe=demo", "launch.nodes=1"]), SLURM) == ALONE


def test_a_hostfile_numbers_the_machines_of_one_command(tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text("# two\nnode-a slots=8\nnode-b slots=8\n")
    words = ["recipe=demo", "launch=external", f"train.launcher.hostfile={tmp_path / 'hosts'}"]
    config = compose(words)
    for node, host in enumerate(("node-a.site", "node-b")):
        world = worlds.of(config, {}, host)
        assert (world.rank, world.size, world.nodes, world.address) == (node, 2, 2, "node-a")
    with pytest.raises(ConfigError, match="must name this machine, node-c; it names node-a, nod"):
        worlds.of(config, {}, "node-c")
    (tmp_path / "hosts").write_text("node-a slots=8\n127.0.0.1 slots=8\n")
    assert worlds.of(config, {}, "node-c").rank == 1


def test_settings_of_the_meeting_win_over_variables() -> None:
    words = ["recipe=demo", "launch.address=10.9.9.9", "launch.port=7001"]
    world = worlds.of(compose(words), SLURM)
    assert (world.address, world.ports) == ("10.9.9.9", [7001])
