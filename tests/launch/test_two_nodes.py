"""The training of one node with two ranks and of two nodes with one are the same, to the bit,
whichever launcher starts the same command on both. Two nodes are network namespaces (`make
test-nodes`). torchrun is real, and mpirun where it is installed; of the others the variables are
set. tests/test_cluster.py has the real srun."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median

import pytest
from commands import ENV, command, corpus
from two_hosts import FIRST, HOSTS, A, B, inside, two_hosts

from ropewalk.train.checkpoint.storage import list_checkpoints

pytestmark = pytest.mark.slow
LIMIT_S = 900
STEPS = 4
WORDS = ["train.launcher.ranks_per_node=1"]
PER_NODE: dict[str, dict[str, str]] = {
    "srun": {
        "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "%n", "SLURM_NODEID": "%n",
        "SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2",
        "SLURM_STEP_NODELIST": f"{A},{B}",
    },
    "mpirun": {
        "OMPI_COMM_WORLD_RANK": "%n", "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_LOCAL_RANK": "0", "OMPI_COMM_WORLD_LOCAL_SIZE": "1", "MASTER_ADDR": FIRST,
    },
    "TrainJob": {
        "PET_NNODES": "2", "PET_NODE_RANK": "%n", "PET_NPROC_PER_NODE": "1",
        "PET_MASTER_ADDR": A, "PET_MASTER_PORT": "29400",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def hosts() -> Iterator[dict[str, str]]:
    with two_hosts(know_names=True) as addresses:
        yield addresses


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, and the training of one node with two ranks in it."""
    folder = tmp_path_factory.mktemp("two-nodes")
    corpus(folder)
    words = command(folder, "train", "name=one", "train.launcher.ranks_per_node=2")
    subprocess.run(words, env=ENV, check=True, timeout=LIMIT_S)
    return folder


class Nodes:
    """One command on both nodes, its output in `NODE.log` of the folder."""

    def __init__(self, folder: Path, words: list[str], env: Mapping[str, str]) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.processes = []
        for number, host in enumerate(HOSTS):
            own = {name: value.replace("%n", str(number)) for name, value in env.items()}
            with open(folder / f"{number}.log", "w") as log:
                process = subprocess.Popen(
                    inside(host, *words),
                    env=ENV | own,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self.processes.append(process)

    def codes(self, within_s: float = LIMIT_S) -> list[int]:
        until = time.monotonic() + within_s
        return [one.wait(max(1.0, until - time.monotonic())) for one in self.processes]

    def log(self, node: int) -> str:
        return (self.folder / f"{node}.log").read_text()

    def wait_for(self, text: str, node: int = 0) -> None:
        until = time.monotonic() + LIMIT_S
        while text not in self.log(node):
            assert time.monotonic() < until and self.processes[node].poll() is None, self.log(node)
            time.sleep(0.1)


def losses(work: Path, name: str) -> list[tuple[int, float, float]]:
    lines = (work / "runs" / name / "train" / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [(row["step"], row["loss"], row["grad_norm"]) for row in rows if "loss" in row]


def held_against_one_node(work: Path, name: str, nodes: Nodes) -> None:
    assert nodes.codes() == [0, 0], nodes.log(0) + nodes.log(1)
    rows = losses(work, name)
    assert len(rows) == STEPS and rows == losses(work, "one")


@pytest.mark.parametrize("launcher", PER_NODE)
def test_variables_of_a_launcher(hosts: dict[str, str], work: Path, launcher: str) -> None:
    words = command(work, "train", f"name={launcher}", *WORDS)
    nodes = Nodes(work / launcher, words, PER_NODE[launcher])
    held_against_one_node(work, launcher, nodes)
    assert "2 machine(s), 1 command(s) on each" in nodes.log(0) and A in nodes.log(0)


def test_launch_torchrun(hosts: dict[str, str], work: Path) -> None:
    """This command starts torchrun; words after -- are torchrun's."""
    settings = ["launch=torchrun", "launch.nodes=2", f"launch.address={FIRST}"]
    words = command(work, "train", "name=torchrun", *settings, *WORDS)
    nodes = Nodes(work / "torchrun", [*words, "--", "--monitor-interval", "0.2"], {})
    held_against_one_node(work, "torchrun", nodes)


def test_the_users_own_torchrun(hosts: dict[str, str], work: Path) -> None:
    """One process a node, numbered by its rendezvous."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2"]
    torchrun += ["--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{A}:29555"]
    torchrun += ["--max-restarts", "0", "--module"]
    words = [*torchrun, *command(work, "train", "name=users-torchrun", *WORDS)[2:]]
    held_against_one_node(work, "users-torchrun", Nodes(work / "users", words, {}))


def test_a_hostfile(hosts: dict[str, str], work: Path) -> None:
    (work / "hosts").write_text(f"{A} slots=1\n{B} slots=1\n")
    settings = ["launch=external", f"train.launcher.hostfile={work / 'hosts'}"]
    words = command(work, "train", "name=hostfile", *settings, *WORDS)
    held_against_one_node(work, "hostfile", Nodes(work / "hostfile", words, {}))


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")
def test_mpirun(work: Path) -> None:
    """A process a rank, on one machine: mpirun would reach others by ssh."""
    words = command(work, "train", "name=real-mpirun", "launch.address=127.0.0.1")
    mpirun = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", "2"]
    subprocess.run([*mpirun, *words], env=ENV, check=True, timeout=LIMIT_S)
    assert losses(work, "real-mpirun") == losses(work, "one")


def test_a_process_a_rank_under_torchrun(work: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words = [*torchrun, "--nproc-per-node", "2", "--module"]
    words += command(work, "train", "name=by-task")[2:]
    subprocess.run(words, env=ENV, check=True, timeout=LIMIT_S)
    assert losses(work, "by-task") == losses(work, "one")


@pytest.mark.parametrize(("node", "name"), enumerate(HOSTS), ids=["first", "second"])
def test_a_node_is_killed_and_started_again(
    hosts: dict[str, str], work: Path, node: int, name: str
) -> None:
    """All end within 30 s and say which; the same command resumes to the same losses."""
    words = command(
        work, "train", f"name=killed-{node}", "train.checkpoint.interval_steps=1", *WORDS
    )
    nodes = Nodes(work / f"killed-{node}", words, PER_NODE["srun"])
    nodes.wait_for("step 1/")
    saved = work / "runs" / f"killed-{node}" / "train.tmp" / "checkpoints"
    while not list_checkpoints(saved):
        assert nodes.processes[0].poll() is None, nodes.log(0)
        time.sleep(0.05)
    for pid in pids(name):
        os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    codes = nodes.codes(60)
    assert time.monotonic() - started < 30
    other = nodes.log(1 - node)
    assert codes[node] == -signal.SIGKILL and codes[1 - node] == 1, other
    assert f"node {node} on {name}" in other or f"rank {node} on {name}" in other, other
    again = Nodes(work / f"killed-{node}", words, PER_NODE["srun"])
    held_against_one_node(work, f"killed-{node}", again)
    assert "; resumed at step " in again.log(0)


@pytest.mark.parametrize("node", [0, 1])
def test_a_node_is_asked_to_stop(hosts: dict[str, str], work: Path, node: int) -> None:
    """As Slurm warns one of them, or all: exit code 75 everywhere, and a resume to the bit."""
    words = command(work, "train", f"name=stopped-{node}", *WORDS)
    nodes = Nodes(work / f"stopped-{node}", words, PER_NODE["srun"])
    nodes.wait_for("step 1/")
    nodes.processes[node].send_signal(signal.SIGUSR1)
    assert nodes.codes(60) == [75, 75], nodes.log(0) + nodes.log(1)
    again = Nodes(work / f"stopped-{node}", words, PER_NODE["srun"])
    held_against_one_node(work, f"stopped-{node}", again)


def seconds_on_one_node(work: Path, name: str) -> float:
    """From the command to its first step."""
    log = work / f"{name}.log"
    words = command(work, "train", f"name={name}", "train.launcher.ranks_per_node=2")
    began = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(words, env=ENV, stdout=output, stderr=subprocess.STDOUT)
    while "step 1/" not in log.read_text():
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    seconds = time.monotonic() - began
    assert process.wait(LIMIT_S) == 0
    return seconds


def seconds_on_two_nodes(work: Path, name: str) -> float:
    began = time.monotonic()
    nodes = Nodes(work / name, command(work, "train", f"name={name}", *WORDS), PER_NODE["srun"])
    nodes.wait_for("step 1/")
    seconds = time.monotonic() - began
    assert nodes.codes() == [0, 0], nodes.log(0) + nodes.log(1)
    return seconds


def test_the_first_step_comes_as_soon_as_on_one_node(hosts: dict[str, str], work: Path) -> None:
    """With documents tokenised: at most 1.3 times as long. In turns, for a machine that is not
    quiet."""
    one, two = [], []
    for number in range(3):
        one.append(seconds_on_one_node(work, f"start-one-{number}"))
        two.append(seconds_on_two_nodes(work, f"start-two-{number}"))
    print(f"seconds to the first step: {one} on one node, {two} on two")
    assert median(two) <= 1.3 * median(one), (one, two)


def pids(host: str) -> list[int]:
    listed = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True)
    return [int(pid) for pid in listed.stdout.split()]
