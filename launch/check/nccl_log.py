"""What NCCL says that it chose: its interface, its network, and the way between two ranks.

Forms of NCCL 2.12 to 2.30, as `NCCL_DEBUG=INFO` prints them (NVIDIA/nccl issues 707, 1189, 1358,
1591, 1609; nccl-tests 185, 252).
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

BOOTSTRAP = re.compile(r"NCCL INFO Bootstrap ?: ?Using (?P<name>[^\s:]+):(?P<address>\S+?)<\d+>")
NETWORK = re.compile(r"NCCL INFO Using network (?P<network>.+?)\s*$")
DEVICES = re.compile(r"NCCL INFO NET/(?P<network>\w+) ?: Using (?P<devices>\[0\].*)")
DEVICE = re.compile(r"\[\d+\](\S+)")
CHANNEL = re.compile(
    r"NCCL INFO Channel \d+(?:/\d+)? : (?P<source>\d+)\[\w+\] -> (?P<target>\d+)\[\w+\] "
    r"(?:\[(?:send|receive)\] )?via (?P<way>\S.*?)\s*$"
)
RDMA = Path("/sys/class/infiniband")
SUBSYSTEMS = "INIT,BOOTSTRAP,ENV,NET,P2P,SHM"


@dataclass(frozen=True)
class NcclLog:
    """Of one rank."""

    interface: str = ""
    """Over which the ranks first met."""
    network: str = ""
    """`IB`, `Socket`, `AWS Libfabric`, or another plugin's name."""
    devices: list[str] = field(default_factory=list)
    """Of that network: `mlx5_0:1/IB`, `eth0`."""
    ways: dict[str, int] = field(default_factory=dict)
    """`P2P/CUMEM`, `SHM/direct/direct`, `NET/IB/GDRDMA`, ...: how many channels."""


def parse(lines: Iterable[str]) -> NcclLog:
    """The first interface and network of a log, which are those of the group of all ranks."""
    interface, network, ways = "", "", Counter[str]()
    devices: dict[str, list[str]] = {}
    for line in lines:
        if match := BOOTSTRAP.search(line):
            interface = interface or match["name"]
        elif match := NETWORK.search(line):
            network = network or match["network"]
        elif match := DEVICES.search(line):
            names = [name.partition(":")[0] for name in DEVICE.findall(match["devices"])]
            if match["network"] != "Socket":
                names = DEVICE.findall(match["devices"])
            devices.setdefault(match["network"], names)
        elif match := CHANNEL.search(line):
            ways[_without_number(match["way"])] += 1
    return NcclLog(interface, network, devices.get(network, []), dict(ways))


def _without_number(way: str) -> str:
    """`NET/IB/3/GDRDMA` is `NET/IB/GDRDMA`: which of the devices does not matter."""
    return "/".join(part for part in way.split("/") if not part.isdecimal())


def written_to(path: Path) -> dict[str, str]:
    """The variables with which a rank's NCCL writes its log into a file."""
    return {
        "NCCL_DEBUG": "INFO",
        "NCCL_DEBUG_SUBSYS": SUBSYSTEMS,
        "NCCL_DEBUG_FILE": str(path),
    }


def read(path: Path) -> NcclLog:
    """Empty where NCCL wrote none."""
    try:
        with path.open(errors="replace") as file:
            return parse(file)
    except OSError:
        return NcclLog()


def rdma_devices(folder: Path = RDMA) -> list[str]:
    """This host's, with a port that is active."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [name for name in names if _is_active(folder / name)]


def _is_active(device: Path) -> bool:
    states = device.glob("ports/*/state")
    return any("ACTIVE" in state.read_text(errors="replace") for state in states)
