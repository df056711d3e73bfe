"""Two hosts in small: network namespaces that one pair of interfaces joins.

Each has a second interface, `nowhere`, that leads to no other host. With `remote_shell` DeepSpeed's
runner starts commands in them: its `pdsh` and `ssh` are stand-ins.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

A, B = f"rope-a{os.getpid()}", f"rope-b{os.getpid()}"
"""Tests may run beside one another."""
HOSTS = {A: "10.213.0.1", B: "10.213.0.2"}
FIRST = HOSTS[A]
NAMES = Path("/etc/netns")
JOINED, NOWHERE = "rw0", "nowhere"
SSH = f"#!/bin/sh\necho {FIRST}\n"
# pdsh -S -f N -w HOSTS COMMAND...: in each host with an environment of its own, %n its number
PDSH = """\
#!{python}
import subprocess, sys
rest = sys.argv[sys.argv.index("-w") + 1:]
hosts, line = rest[0].split(","), " ".join(rest[1:])
if line.startswith("pkill"):
    sys.exit(0)
shell = ["env", "-i", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-c"]
started = [
    subprocess.Popen(
        ["ip", "netns", "exec", host, "unshare", "-u", *shell]
        + ["hostname " + host + "; " + line.replace("%n", str(number))]
    )
    for number, host in enumerate(hosts)
]
sys.exit(max(process.wait() for process in started))
"""


def inside(host: str, *words: str) -> list[str]:
    """A command in the namespace of a host, which has a name of its own."""
    program = ["sh", "-c", f'hostname {host}; exec "$@"', "sh", *words]
    return ["ip", "netns", "exec", host, "unshare", "-u", *program]


@contextmanager
def two_hosts(know_names: bool = False) -> Iterator[dict[str, str]]:
    """Their addresses by name. Skips the test where this process may not make them.

    `know_names`: each resolves its own name and the other's.
    """
    if shutil.which("ip") is None or not all([_ip("netns", "add", host) for host in HOSTS]):
        pytest.skip("this process may not make network namespaces")
    try:
        if not _join():
            pytest.skip("this process may not join network namespaces")
        for host in HOSTS if know_names else ():  # which `ip netns exec` lays over /etc/hosts
            (NAMES / host).mkdir(parents=True)
            lines = [f"{address} {name}" for name, address in HOSTS.items()]
            (NAMES / host / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        yield HOSTS
    finally:
        for host in HOSTS:
            for pid in _pids(host):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            _ip("netns", "delete", host)
            shutil.rmtree(NAMES / host, ignore_errors=True)


def _pids(host: str) -> list[int]:
    """Of the processes that a test left in the namespace."""
    listed = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True)
    return [int(pid) for pid in listed.stdout.split()]


def remote_shell(folder: Path) -> None:
    """Write the stand-ins into `folder`, which goes first on PATH."""
    for name, text in {"ssh": SSH, "pdsh": PDSH.format(python=sys.executable)}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


def _join() -> bool:
    links = ["link", "add", JOINED, "netns", A, "type", "veth", "peer", "name", JOINED]
    good = _ip(*links, "netns", B)
    for host, address in HOSTS.items():
        for words in (
            ("link", "add", NOWHERE, "type", "veth", "peer", "name", "beside"),
            ("addr", "add", f"{address}/24", "dev", JOINED),
            ("addr", "add", f"10.99.{address[-1]}.1/24", "dev", NOWHERE),
            *(("link", "set", name, "up") for name in ("lo", JOINED, NOWHERE, "beside")),
        ):
            good = good and _ip("-n", host, *words)
    return good


def _ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], capture_output=True).returncode == 0
