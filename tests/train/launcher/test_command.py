"""The ranks' environment: nothing of another launcher and of the working folder is in it."""

import re
import socket
import subprocess
import sys
from pathlib import Path

import deepspeed
import pytest

from ropewalk.launch.config.compose import compose
from ropewalk.train.launcher.command import command, master_port
from ropewalk.train.launcher.environment import environment, without_leftovers

# names from the documentation of Open MPI, MPICH's Hydra, Slurm's srun and torchrun
LEFTOVERS = [
    "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_UNIVERSE_SIZE", "PMI_RANK",
    "PMI_SIZE", "PMIX_RANK", "PMIX_NAMESPACE", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS",
    "I_MPI_HYDRA_HOST_FILE", "MV2_COMM_WORLD_RANK", "MPI_LOCALRANKID", "RANK", "LOCAL_RANK",
    "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "NODE_RANK", "TORCHELASTIC_RUN_ID",
    "PET_NNODES",
]  # fmt: skip
OWN = {"HOME": "/root", "SLURMX": "1", "RANKING": "1", "OMP_NUM_THREADS": "3", "NCCL_DEBUG": "INFO"}


def test_variables_of_another_launcher_do_not_reach_the_ranks() -> None:
    assert without_leftovers({**dict.fromkeys(LEFTOVERS, "1"), **OWN}) == OWN


def test_what_deepspeed_reads_of_a_job_does_not_reach_the_ranks() -> None:
    source = "".join(path.read_text() for path in Path(deepspeed.__path__[0]).rglob("*.py"))
    names = set(re.findall(r"""["']((?:OMPI|PMIX?|SLURM)_[A-Z_]+)["']""", source))
    assert "OMPI_COMM_WORLD_LOCAL_RANK" in names  # engine.py holds it against LOCAL_RANK
    assert without_leftovers(dict.fromkeys(names, "1")) == {}


@pytest.mark.parametrize("python_path", ["", ":", "::"])
def test_a_file_of_the_working_folder_shadows_no_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python_path: str
) -> None:
    """Python puts the working folder first for -m, and for an empty entry of PYTHONPATH."""
    (tmp_path / "profile.py").write_text("raise SystemExit('the file of the working folder')")
    monkeypatch.setenv("PYTHONPATH", python_path)
    arguments = [sys.executable, "-m", "cProfile", "-h"]  # which imports profile
    plain = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True)
    assert "the file of the working folder" in plain.stderr
    env = environment()
    shielded = subprocess.run(arguments, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert shielded.returncode == 0 and shielded.stdout.startswith("Usage: cProfile.py")


def test_the_first_hosts_port_is_not_one_that_is_free_here_only(tmp_path: Path) -> None:
    """It is the run's own, below those that Linux deals out; here, or as set, it is another."""
    hostfile = tmp_path / "hostfile"
    hostfile.write_text("worker-1 slots=2\nworker-2 slots=2\n")
    setting = f"train.launcher.hostfile={hostfile}"
    away = compose(["recipe=demo", setting])
    ports = {master_port(away, tmp_path / f"run-{n}") for n in range(50)}
    assert len(ports) > 40 and all(29400 <= port < 32500 for port in ports)
    assert master_port(away, tmp_path) == master_port(away, tmp_path)
    as_set = compose(["recipe=demo", setting, "train.launcher.master_port=2345"])
    assert master_port(as_set, tmp_path) == 2345
    assert "2345" in command(as_set, tmp_path)
    hostfile.write_text(f"{socket.gethostname()} slots=2\n")
    with socket.create_server(("127.0.0.1", master_port(away, tmp_path))):
        pass  # it is free
