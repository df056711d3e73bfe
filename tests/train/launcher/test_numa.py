"""A rank runs on the cores beside its GPU, where the system says which they are."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.numa import binding

from ropewalk.train.launcher.numa import bind_to_device, cores_beside, parse_cores


def system(root: Path, nodes: dict[int, str], devices: dict[str, int]) -> Path:
    """A stand-in of /sys: the cores of each node, the node of each device."""
    for node, cores in nodes.items():
        (root / f"devices/system/node/node{node}").mkdir(parents=True)
        (root / f"devices/system/node/node{node}/cpulist").write_text(f"{cores}\n")
    for address, node in devices.items():
        (root / "bus/pci/devices" / address).mkdir(parents=True)
        (root / "bus/pci/devices" / address / "numa_node").write_text(f"{node}\n")
    return root


@pytest.mark.parametrize("text", ["0-3,8", "0", "1-2,4-6,9", "0-127"])
def test_lists_of_cores_are_read_as_torch_reads_them(text: str) -> None:
    assert parse_cores(f"{text}\n") == binding._get_set_of_int_from_ranges_str(text)


def test_a_process_is_bound_to_the_cores_beside_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = system(
        tmp_path,
        {0: "0-1", 1: "2-3,6"},
        {"0000:17:00.0": 0, "0001:9a:00.0": 1, "0000:3b:00.0": -1},
    )
    places = {0: (0, 0x17), 1: (1, 0x9A), 2: (0, 0x3B)}

    def properties(device: int) -> SimpleNamespace:
        domain, bus = places[device]
        return SimpleNamespace(pci_domain_id=domain, pci_bus_id=bus, pci_device_id=0)

    bound: list[tuple[int, set[int]]] = []
    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2, 3, 5})
    monkeypatch.setattr(os, "sched_setaffinity", lambda *arguments: bound.append(arguments))
    assert bind_to_device(0, root) == {1} and bind_to_device(1, root) == {2, 3}
    assert bind_to_device(2, root) == set()  # the system names no node
    assert bind_to_device(0, tmp_path / "nothing") == set()
    assert bound == [(0, {1}), (0, {2, 3})]


def test_the_system_here_is_read_without_an_error() -> None:
    assert cores_beside("ffff:ff:1f.7") == set()
