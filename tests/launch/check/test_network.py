"""The interface between the hosts: by the grammar of NCCL and of gloo; in network namespaces."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from two_hosts import FIRST, A, B, inside, remote_shell, two_hosts

from ropewalk.launch.check import network_probe
from ropewalk.launch.check.line import FAIL, PASS, SKIP, Line
from ropewalk.launch.check.network import Route, neighbour, network_line

UP = {"docker0": "172.17.0.1", "eth0": "10.0.0.2", "lo": "127.0.0.1"}


def route(host: str, rank: int, **changes: Any) -> Route:
    values: dict[str, Any] = {"interface": "eth0", "addresses": UP, "own_address": "10.0.0.2"}
    return Route(host, rank, **{**values, **changes})


HERE, OTHER = route("a", 0, interface="lo"), route("b", 1)


def nccl(name: str) -> Route:
    return route("b", 1, backend="nccl", named=name)


def test_one_host_needs_no_network() -> None:
    assert network_line([HERE, route("a", 1)]).status == SKIP


@pytest.mark.parametrize("name", ["eth0", "eth", "=eth0", "^docker0,lo", "^docker,lo", "ib,eth"])
def test_interfaces_that_nccl_finds(name: str) -> None:
    assert nccl(name).chosen() == ["eth0"] and nccl(name).address() == "10.0.0.2"
    assert network_line([HERE, nccl(name)]).status == PASS


@pytest.mark.parametrize("name", ["ib0", "=eth", "eth1", "^docker0,lo,eth"])
def test_interfaces_that_nccl_does_not_find(name: str) -> None:
    line = network_line([HERE, nccl(name)])
    assert line.status == FAIL and line.way_out
    assert f"rank 1 on b: NCCL_SOCKET_IFNAME is {name}, and what is up is docker0" in line.value


@pytest.mark.parametrize(
    ("addresses", "chosen"),
    [
        (UP, ["eth0"]),
        (UP | {"ib0": "10.1.0.2"}, ["ib0"]),
        ({"docker0": "172.17.0.1", "lo": "127.0.0.1"}, ["docker0"]),
        ({"lo": "127.0.0.1"}, ["lo"]),
    ],
)
def test_what_nccl_takes_by_itself(addresses: dict[str, str], chosen: list[str]) -> None:
    """InfiniBand first, then what is neither docker's nor the loop (NCCL's socket.cc)."""
    assert route("b", 1, backend="nccl", addresses=addresses).chosen() == chosen


def test_gloo_wants_full_names_and_else_takes_the_hosts_own() -> None:
    assert OTHER.chosen() == ["eth0"]
    assert route("b", 1, named="eth0").chosen() == ["eth0"]
    assert route("b", 1, named="eth").chosen() == []
    line = network_line([HERE, route("b", 1, named="eth")])
    assert line.status == FAIL and "GLOO_SOCKET_IFNAME is eth, and what is up" in line.value


def test_a_host_whose_name_means_itself() -> None:
    """Debian's /etc/hosts: gloo would tell the others 127.0.1.1."""
    line = network_line([HERE, route("b", 1, own_address="127.0.1.1")])
    assert line.status == FAIL
    assert line.value == "rank 1 on b: no name is set, and gloo would take 127.0.1.1"
    named = route("b", 1, own_address="127.0.1.1", named="eth0")
    assert network_line([HERE, named]).status == PASS
    assert network_line([HERE, route("b", 1, named="lo")]).status == FAIL


@pytest.mark.parametrize(("interface", "told"), [("docker0", "by docker0"), ("", "has no way")])
def test_the_wrong_way_between_hosts(interface: str, told: str) -> None:
    assert network_line([HERE, OTHER]).status == PASS
    line = network_line([HERE, route("b", 1, interface=interface)])
    assert line.status == FAIL and told in line.value


def test_a_rank_that_does_not_reach_the_next_host() -> None:
    hosts = [HERE, route("a", 1), route("b", 2), route("b", 3)]
    assert [neighbour(hosts, rank).rank for rank in range(4)] == [2, 2, 0, 0]
    line = network_line(hosts, {3: "timed out"})
    assert line.status == FAIL
    assert line.value == "rank 3 on b does not reach rank 0 on a by eth0 (10.0.0.2): timed out"


def test_ranks_tell_one_another_over_the_store() -> None:
    """One host here; the connection between hosts is tried in the namespaces below."""
    store = dist.HashStore()
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    assert network_probe.check_network(store, 0, 1).status == SKIP
    assert json.loads(store.get("check/route/0"))["rank"] == 0


def test_another_process_that_answers_is_no_rank() -> None:
    with network_probe._listening("127.0.0.1", 7) as port:
        here = {"addresses": {"lo": "127.0.0.1"}, "own_address": "127.0.0.1"}
        there = {"listens_at": ("127.0.0.1", port), **here}
        right = [route("a", 0, **here), route("b", 7, **there)]
        assert network_probe.reach(right, 0) == ""
        wrong = [route("a", 0, **here), route("b", 1, **there)]
        assert "another process answers" in network_probe.reach(wrong, 0)
    assert "refused" in network_probe.reach(right, 0)


# -- two hosts in small

PROGRAM = """
import json, sys
from dataclasses import asdict
from ropewalk.launch.check.network_probe import check_network
import torch.distributed as dist
rank = int(sys.argv[1])
store = dist.TCPStore("10.213.0.1", 29777, 2, rank == 0)
print(json.dumps(asdict(check_network(store, rank, 2))))
"""


@pytest.fixture
def hosts() -> Iterator[dict[str, str]]:
    with two_hosts() as addresses:
        yield addresses


def _lines(hosts: dict[str, str], **environment: str) -> list[Line]:
    """Of each rank, one on each host. The second has `environment`."""
    base = os.environ | {"MASTER_ADDR": FIRST, "GLOO_SOCKET_IFNAME": "rw0"}
    ranks = [
        subprocess.Popen(
            inside(host, sys.executable, "-c", PROGRAM, str(rank)),
            stdout=subprocess.PIPE,
            text=True,
            env=base | (environment if rank else {}),
        )
        for rank, host in enumerate(hosts)
    ]
    texts = [process.communicate()[0] for process in ranks]
    return [Line(**json.loads(text.splitlines()[-1])) for text in texts]


@pytest.mark.parametrize(
    ("interface", "told"),
    [
        ("rw0", "gloo by rw0 (10.213.0.1), rw0 (10.213.0.2)"),
        ("eth7", f"rank 1 on {B}: GLOO_SOCKET_IFNAME is eth7, and what is up is beside, lo"),
        ("lo", f"rank 1 on {B}: GLOO_SOCKET_IFNAME is lo, and gloo would take 127.0.0.1"),
        ("nowhere", f"rank 0 on {A} does not reach rank 1 on {B} by rw0 (10.213.0.1): "),
    ],
    ids=["joined", "missing", "loop", "nowhere"],  # names of hosts differ by process
)
def test_the_interface_between_two_namespaces(
    hosts: dict[str, str], interface: str, told: str
) -> None:
    started = time.monotonic()
    first, second = _lines(hosts, GLOO_SOCKET_IFNAME=interface)
    assert first == second and first.value.startswith(told), first.value
    assert first.status == (PASS if interface == "rw0" else FAIL)
    assert time.monotonic() - started < 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("interface", "told"),
    [
        ("rw0", ""),
        ("nowhere", f"rank 0 on {A} does not reach rank 1 on {B} by nowhere (10.99.1.1): "),
        ("", f"rank 0 on {A}: no name is set, and gloo would take 127.0.0.1"),
    ],
    ids=["joined", "nowhere", "unset"],
)
def test_the_command_on_two_hosts(
    hosts: dict[str, str], tmp_path: Path, interface: str, told: str
) -> None:
    """Through DeepSpeed's runner. With a wrong interface nothing after it is started."""
    remote_shell(tmp_path)
    (tmp_path / "hostfile").write_text(f"{A} slots=1\n{B} slots=1\n")
    words = ["recipe=demo", f"runs_dir={tmp_path / 'runs'}", f"cache_dir={tmp_path / 'cache'}"]
    words += [f"train.launcher.hostfile={tmp_path / 'hostfile'}", "train.sp_size=2"]
    words += ["train.launcher.ranks_per_node=1"]
    command = [sys.executable, "-m", "ropewalk.launch.cli", "check", "--json", *words]
    env = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "GLOO_SOCKET_IFNAME": interface}
    result = subprocess.run(inside(A, *command), capture_output=True, text=True, env=env)
    assert result.returncode == (3 if told else 0), result.stderr
    lines = {line["name"]: line for line in json.loads(result.stdout)["checks"]}
    bad = [name for name, line in lines.items() if line["status"] == "fail"]
    if told:
        assert bad == ["network"] and lines["network"]["value"].startswith(told)
        assert lines["hosts"]["value"] == "the ranks ended during network"
    else:
        assert not bad and lines["network"]["value"].startswith("gloo by rw0 (10.213.0.1), rw0")
        assert lines[f"/dev/shm on {B}"]["status"] == "pass"
