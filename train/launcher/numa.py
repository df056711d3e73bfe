"""Each rank on the cores beside its GPU.

On a machine with several sockets memory and the bus of the other socket are slower, for copies to
host memory and for an optimizer there. DeepSpeed's `--bind_cores_to_rank` and torchrun's
`--numa-binding` do so from the launcher, by numactl, which must be installed on every node; this
needs the kernel alone.
"""

import os
import sys
from pathlib import Path
from typing import Any

SYS = Path("/sys")


def bind_to_device(device: int, sys_root: Path = SYS) -> set[int]:
    """Bind this process to the cores of the NUMA node of CUDA device `device`; returns them.

    Threads that start later inherit it. Empty, and nothing is bound, where the system names no
    node, or this process may use none of its cores.
    """
    import torch

    if sys.platform != "linux":
        return set()
    # torch has these fields since 2.8, and its stubs do not name them
    properties: Any = torch.cuda.get_device_properties(device)
    address = (
        f"{properties.pci_domain_id:04x}:{properties.pci_bus_id:02x}:"
        f"{properties.pci_device_id:02x}.0"
    )
    cores = cores_beside(address, sys_root) & os.sched_getaffinity(0)
    if cores:
        os.sched_setaffinity(0, cores)
    return cores


def cores_beside(address: str, sys_root: Path = SYS) -> set[int]:
    """The cores of the NUMA node of a PCI device; empty where the system names none (-1)."""
    try:
        node = int((sys_root / "bus/pci/devices" / address / "numa_node").read_text())
        if node < 0:
            return set()
        text = (sys_root / f"devices/system/node/node{node}/cpulist").read_text()
    except (OSError, ValueError):  # a container may hide it
        return set()
    return parse_cores(text)


def parse_cores(text: str) -> set[int]:
    """Of the kernel's form of a list: `0-3,8`."""
    cores: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return cores
