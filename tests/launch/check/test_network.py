"""The interface between the hosts: of two network namespaces, and by NCCL's grammar of names."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from ropewalk.launch.check.line import FAIL, PASS, SKIP
from ropewalk.launch.check.network import Route, network_line, route_of

FIRST = Route("a", 0, "lo", ["docker0", "eth0", "lo"], {})
OTHER = Route("b", 1, "eth0", ["docker0", "eth0", "lo"], {})


def route(interface: str = "eth0", **named: str) -> Route:
    return Route("b", 1, interface, ["docker0", "eth0", "lo"], named)


def test_one_host_needs_no_network() -> None:
    assert network_line([FIRST, FIRST]).status == SKIP


@pytest.mark.parametrize("name", ["eth0", "eth", "=eth0", "^docker0,lo", "^docker", "ib,eth"])
def test_interfaces_that_are_there(name: str) -> None:
    assert network_line([FIRST, route(NCCL_SOCKET_IFNAME=name)]).status == PASS


@pytest.mark.parametrize("name", ["ib0", "=eth", "eth1", "^docker0,lo,eth"])
def test_interfaces_that_are_not_there(name: str) -> None:
    line = network_line([FIRST, route(NCCL_SOCKET_IFNAME=name)])
    assert line.status == FAIL and line.way_out
    assert f"rank 1 on b: NCCL_SOCKET_IFNAME is {name}, and what is up is docker0" in line.value


@pytest.mark.parametrize(("interface", "told"), [("docker0", "by docker0"), ("", "has no way")])
def test_the_wrong_way_between_hosts(interface: str, told: str) -> None:
    assert network_line([FIRST, OTHER]).status == PASS
    line = network_line([FIRST, route(interface)])
    assert line.status == FAIL and told in line.value


NAMESPACE = "ropewalk-check"
PROGRAM = """
import json
from dataclasses import asdict
from ropewalk.launch.check.network import route_of
print(json.dumps(asdict(route_of(1))))
"""


def _ip(*words: str) -> bool:
    return subprocess.run(["ip", *words], capture_output=True).returncode == 0


@pytest.fixture
def namespace() -> Iterator[str]:
    """A second host in small: a network namespace joined to this one by a pair of interfaces."""
    if shutil.which("ip") is None or not _ip("netns", "add", NAMESPACE):
        pytest.skip("this process may not make a network namespace")
    try:
        inside = ("netns", "exec", NAMESPACE, "ip")
        made = (
            _ip("link", "add", "rw0", "type", "veth", "peer", "name", "rw1", "netns", NAMESPACE)
            and _ip("addr", "add", "10.213.0.1/24", "dev", "rw0")
            and _ip("link", "set", "rw0", "up")
            and _ip(*inside, "addr", "add", "10.213.0.2/24", "dev", "rw1")
            and _ip(*inside, "link", "set", "rw1", "up")
            and _ip(*inside, "link", "set", "lo", "up")
        )
        if not made:
            pytest.skip("this process may not join network namespaces")
        yield NAMESPACE
    finally:
        _ip("netns", "delete", NAMESPACE)


def _route_inside(namespace: str, **environment: str) -> Route:
    words = ["ip", "netns", "exec", namespace, sys.executable, "-c", PROGRAM]
    env = os.environ | {"MASTER_ADDR": "10.213.0.1"} | environment
    result = subprocess.run(words, capture_output=True, text=True, env=env, check=True)
    return Route(**{**json.loads(result.stdout), "host": "b"})


def test_a_wrong_interface_in_a_namespace(namespace: str) -> None:
    first = route_of(0, {"MASTER_ADDR": "10.213.0.1"})
    assert first.interface in ("rw0", "lo")
    right = _route_inside(namespace)
    assert right.interface == "rw1" and right.interfaces == ["lo", "rw1"]
    assert network_line([first, right]).status == PASS
    for wrong in (
        _route_inside(namespace, GLOO_SOCKET_IFNAME="rw0"),
        _route_inside(namespace, MASTER_ADDR="10.99.0.1"),
    ):
        line = network_line([first, wrong])
        assert line.status == FAIL and "rank 1 on b" in line.value
    assert asdict(right)["named"] == {}
