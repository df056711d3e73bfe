"""What NCCL chose, from lines in the forms of several of its versions, and what is a fault."""

from dataclasses import replace
from pathlib import Path

import pytest

from ropewalk.conf import hardware_file
from ropewalk.launch.check import nccl_log
from ropewalk.launch.check.line import FAIL, PASS, SKIP
from ropewalk.launch.check.nccl_log import NcclLog, parse
from ropewalk.launch.check.transport import Chosen, transport_line

RDMA_LOG = """\
n1:101:101 [0] NCCL INFO Bootstrap : Using enp220s0np0:10.1.0.6<0>
n1:101:101 [0] NCCL INFO NET/Plugin : No plugin found, using internal implementation
n1:101:142 [0] NCCL INFO NET/IB : Using [0]mlx5_10:1/RoCE [1]mlx5_11:1/RoCE [RO]; OOB eth0:1<0>
n1:101:142 [0] NCCL INFO Using non-device net plugin version 0
n1:101:142 [0] NCCL INFO Using network IB
n1:101:142 [0] NCCL INFO Channel 00/02 :    0   1   2   3
n1:101:142 [0] NCCL INFO Channel 00/0 : 3[1] -> 0[0] [receive] via NET/IB/0/GDRDMA
n1:101:142 [0] NCCL INFO Channel 01/0 : 3[1] -> 0[0] [receive] via NET/IB/1/GDRDMA
n1:101:142 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM/read
n1:101:142 [0] NCCL INFO Connected all rings
"""
SOCKET_LOG = """\
n2:7:7 [0] NCCL INFO NCCL version 2.28.9+cuda13.0
n2:7:7 [0] NCCL INFO Bootstrap: Using eth0:10.2.0.31<0>
n2:7:19 [0] NCCL INFO NET/IB : No device found.
n2:7:19 [0] NCCL INFO NET/IB : Using [RO]; OOB eth0:10.2.0.31<0>
n2:7:19 [0] NCCL INFO NET/Socket : Using [0]eth0:10.2.0.31<0> [1]eth1:10.3.0.31<0>
n2:7:19 [0] NCCL INFO Assigned NET plugin Socket to comm
n2:7:19 [0] NCCL INFO Using network Socket
n2:7:19 [0] NCCL INFO Channel 00/0 : 17[1] -> 0[0] [receive] via NET/Socket/0
n2:7:19 [0] NCCL INFO Channel 00 : 0[c7000] -> 1[d7000] via SHM/direct/direct
"""
PLUGIN_LOG = """\
w:21:21 [0] NCCL INFO NET/OFI Selected Provider is efa (found 1 nics)
w:21:21 [0] NCCL INFO Using network AWS Libfabric
w:21:25 [0] NCCL INFO Channel 15/0 : 34[2] -> 35[3] via P2P/direct pointer
w:21:25 [0] NCCL INFO Channel 09/0 : 33[1] -> 41[1] [send] via NET/IBext_v8/4
"""


def test_rdma_between_hosts() -> None:
    assert parse(RDMA_LOG.splitlines()) == NcclLog(
        "enp220s0np0",
        "IB",
        ["mlx5_10:1/RoCE", "mlx5_11:1/RoCE"],
        {"NET/IB/GDRDMA": 2, "P2P/CUMEM/read": 1},
    )


def test_sockets_and_shared_memory() -> None:
    assert parse(SOCKET_LOG.splitlines()) == NcclLog(
        "eth0", "Socket", ["eth0", "eth1"], {"NET/Socket": 1, "SHM/direct/direct": 1}
    )


def test_a_plugin() -> None:
    expected = {"P2P/direct pointer": 1, "NET/IBext_v8": 1}
    assert parse(PLUGIN_LOG.splitlines()) == NcclLog("", "AWS Libfabric", [], expected)


def test_what_is_no_log_says_nothing(tmp_path: Path) -> None:
    assert parse(["", "rank 0: hello", "NCCL INFO Connected all rings"]) == NcclLog()
    assert nccl_log.read(tmp_path / "none") == NcclLog()
    (tmp_path / "log").write_bytes(RDMA_LOG.encode() + b"\xff\n")
    assert nccl_log.read(tmp_path / "log").network == "IB"


def test_rdma_devices_with_an_active_port(tmp_path: Path) -> None:
    for name, state in (("mlx5_0", "4: ACTIVE\n"), ("mlx5_1", "1: DOWN\n")):
        port = tmp_path / name / "ports" / "1"
        port.mkdir(parents=True)
        (port / "state").write_text(state)
    assert nccl_log.rdma_devices(tmp_path) == ["mlx5_0"]
    assert nccl_log.rdma_devices(tmp_path / "none") == []


H100, RTX = hardware_file.load("h100"), hardware_file.load("rtx4090")
GOOD = [Chosen(host, n, parse(RDMA_LOG.splitlines()), ["mlx5_10"]) for n, host in enumerate("ab")]
SLOW = [replace(one, log=parse(SOCKET_LOG.splitlines())) for one in GOOD]


def test_a_good_transport_is_told() -> None:
    line = transport_line(GOOD, H100)
    assert line.status == PASS
    assert line.value == (
        "NET/IB/GDRDMA, P2P/CUMEM/read; network IB (mlx5_10:1/RoCE, mlx5_11:1/RoCE); met by "
        "enp220s0np0"
    )
    ways = {"NET/IB": 2}
    without = [replace(one, log=replace(one.log, ways=ways)) for one in GOOD]
    assert "no GPUDirect" in transport_line(without, H100).value


def test_sockets_beside_rdma_and_a_detour_through_the_host() -> None:
    line = transport_line(SLOW, H100)
    assert line.status == FAIL and line.way_out
    first, _, second, _ = line.value.split("; ")
    assert first.startswith("rank 0 on a sends 1 channels through the host's memory (SHM)")
    assert second == ("rank 0 on a sends through sockets (eth0, eth1), though its host has mlx5_10")


def test_what_the_hosts_do_not_have_is_no_fault() -> None:
    """A 4090 has no link to its neighbour, a PCIe card to one alone, and these hosts no RDMA."""
    bridged = replace(SLOW[0].log, ways={"SHM/direct/direct": 4, "P2P/CUMEM": 2})
    pair = [replace(one, rdma=[], log=bridged) for one in SLOW]
    assert transport_line(pair, hardware_file.load("h100_pcie")).status == PASS
    assert transport_line([replace(one, rdma=[]) for one in SLOW], RTX).status == PASS
    assert transport_line([replace(one, rdma=[]) for one in SLOW], None).status == PASS


@pytest.mark.parametrize("ranks", [GOOD[:1], [replace(one, log=NcclLog()) for one in GOOD]])
def test_nothing_to_judge(ranks: list[Chosen]) -> None:
    assert transport_line(ranks, H100).status == SKIP
