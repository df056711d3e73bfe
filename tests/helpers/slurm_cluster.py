"""A real Slurm of two nodes on this machine's loopback, in a folder of its own.

Debian's packages slurmctld, slurmd, slurm-client and munge (`make test-cluster` installs them); its
slurmd is built so that one machine may have several nodes. Nothing outlives the context.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
NODES = ("n1", "n2")
CONF = """\
ClusterName=one
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/spool/ctld
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=30
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 State=UNKNOWN
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 \
PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10
"""


def missing() -> str:
    """Why there can be no Slurm here; empty: there can."""
    if os.geteuid():
        return "Slurm's daemons need root"
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)} (make test-cluster)" if absent else ""


@contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """Run the daemons; gives the variables with which Slurm's commands ask them.

    Skips the test where they cannot run. munged wants a folder that every user may enter.
    """
    if reason := missing():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="ropewalk-slurm") as name:
        yield from _running(Path(name))


def _running(folder: Path) -> Iterator[dict[str, str]]:
    for name in ("run", "log", "spool/ctld", *(f"spool/{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    (folder / "slurm.conf").write_text(CONF.format(folder=folder, ports=_free_ports(3)))
    env = {"SLURM_CONF": str(folder / "slurm.conf")}
    try:
        _start(folder, {**os.environ, **env})
        yield env
    finally:
        _stop(folder, {**os.environ, **env})


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _start(folder: Path, env: dict[str, str]) -> None:
    files = {"key-file": "munge.key", "socket": "run/munge.socket", "pid-file": "run/munged.pid"}
    files |= {"log-file": "log/munged.log", "seed-file": "run/munged.seed"}
    munged = ["munged", *(f"--{option}={folder / file}" for option, file in files.items())]
    daemons = [["slurmctld", "-ci"], *(["slurmd", "-N", node] for node in NODES)]
    for command in (munged, *daemons):
        subprocess.run(command, env=env, check=True, timeout=30)
    until = time.monotonic() + 60
    states = ["sinfo", "--noheader", "--partition", "low", "--format", "%T"]
    while (shown := _output(states, env)) != "idle":
        assert time.monotonic() < until, shown
        time.sleep(0.2)


def _output(words: list[str], env: dict[str, str]) -> str:
    return subprocess.run(words, env=env, capture_output=True, text=True).stdout.strip()


def _stop(folder: Path, env: dict[str, str]) -> None:
    """End the jobs, the nodes, the controller, and munged, which they need, last."""
    subprocess.run(["scancel", "--user", "root"], env=env, capture_output=True, timeout=30)
    until = time.monotonic() + 90  # a run that is cancelled saves first
    while _output(["squeue", "--noheader"], env) and time.monotonic() < until:
        time.sleep(0.2)
    nodes = [folder / "run" / f"slurmd-{node}.pid" for node in NODES]
    for files in ([*nodes, folder / "run" / "slurmctld.pid"], [folder / "run" / "munged.pid"]):
        pids = [int(file.read_text()) for file in files if file.is_file()]
        for pid in pids:
            os.kill(pid, 15)
        _gone(pids)


def _gone(pids: list[int]) -> None:
    until = time.monotonic() + 60
    while any(_is_alive(pid) for pid in pids):
        assert time.monotonic() < until, pids
        time.sleep(0.1)


def _is_alive(pid: int) -> bool:
    """A process that has ended may stay in the table until its parent asks for it."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
