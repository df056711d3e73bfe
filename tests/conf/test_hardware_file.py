"""Hardware files: beside what the vendors print, with sparsity and links both ways; and refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ropewalk.conf import hardware_file
from ropewalk.conf.errors import ConfigError
from ropewalk.train.cost.step_time import Rates
from ropewalk.train.cost.traffic import Collective

MIB = 2**20

# Names as torch reports them. From the data sheets of NVIDIA and AMD: TFLOP/s of bf16 with
# sparsity, the memory's TB/s, GB/s of the links in both directions, and the memory's GB.
DATA_SHEETS = {
    "NVIDIA H100 PCIe": (1512, 2.0, 600, 80),
    "NVIDIA H100 NVL": (1671, 3.94, 600, 94),
    "NVIDIA H100 80GB HBM3": (1978.8, 3.35, 900, 80),
    "NVIDIA H200 NVL": (1671, 4.8, 900, 141),
    "NVIDIA H200": (1978.8, 4.8, 900, 141),
    "NVIDIA A100-SXM4-80GB": (624, 2.039, 600, 80),
    "NVIDIA A100-SXM4-40GB": (624, 1.555, 600, 40),
    "NVIDIA GB200": (5000, 8.0, 1800, 186),
    "NVIDIA B200": (4500, 8.0, 1800, 180),
    "NVIDIA B300 SXM6 AC": (4500, 8.0, 1800, 270),
    "NVIDIA L40S": (724.1, 0.864, 63, 48),
    "NVIDIA GeForce RTX 4090": (330.4, 1.008, 63, 24),
    "AMD Instinct MI300X": (2614.8, 5.3, 896, 192),
}


@pytest.mark.parametrize("name", DATA_SHEETS)
def test_a_peak_is_the_data_sheets_without_sparsity_and_one_way(name: str) -> None:
    device, (sparse_tflops, memory, both_ways, size) = (
        hardware_file.of_device(name),
        DATA_SHEETS[name],
    )
    assert device is not None
    assert 2 * device.bf16_tflops.value == pytest.approx(sparse_tflops)
    assert device.memory_tb_s.value == memory
    assert 2 * device.link.gb_s.value == both_ways
    # vendors print 10^9 or 2^30 bytes; the driver keeps some back
    assert 0.95 * size * 1e9 < device.memory_bytes < 1.01 * size * 2**30


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 3090", "cpu", ""])
def test_another_device_has_no_file(name: str) -> None:
    assert hardware_file.of_device(name) is None


@pytest.mark.parametrize("name", hardware_file.names())
def test_what_a_device_reaches_is_below_its_data_sheet(name: str) -> None:
    device = hardware_file.load(name)
    peak = device.bf16_tflops.value
    slow, fast = device.attention_forward_tflops.value, device.fast_attention_forward_tflops.value
    assert slow <= fast < peak
    assert device.attention_backward_tflops.value < device.matmul_tflops.value < peak
    for link in (device.link, device.network):
        assert all(rate < link.gb_s.value for rate in link.rates_gb_s)
        assert link.rates_gb_s == sorted(link.rates_gb_s)


def test_an_unknown_name_gets_the_file_to_write() -> None:
    with pytest.raises(ConfigError) as error:
        hardware_file.load("h900")
    message = str(error.value)
    assert "--hardware is h900" in message and "h100, " in message
    assert "memory_mib: {value, kind, source, date}" in message


FILE = hardware_file.FOLDER / "h100.yaml"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("gpus_per_node", 0, "gpus_per_node is 0"),
        ("memory_mib", {"value": 1, "kind": "heard", "source": "x", "date": "2026-11"}, "heard"),
        ("memory_mib", {"value": -1, "kind": "measured", "source": "x", "date": "y"}, "is -1"),
        ("memory_mib", {"value": 1, "kind": "measured", "date": "2026-11"}, "source"),
        ("memory_gib", 80, "memory_gib"),
    ],
)
def test_a_wrong_file_is_refused_by_its_field(
    tmp_path: Path, key: str, value: object, words: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(FILE.read_text()) | {key: value}))
    with pytest.raises(ConfigError, match=words):
        hardware_file.load(str(path))


def test_a_curve_has_a_rate_for_each_payload(tmp_path: Path) -> None:
    values = yaml.safe_load(FILE.read_text())
    values["link"]["rates_gb_s"] = [220]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match="payloads_mib"):
        hardware_file.load(str(path))


def test_a_rate_lies_on_the_measured_curve() -> None:
    """8 x H100: 220 GB/s at 16 MiB and 368 at 16 GiB; between them a line in logarithms."""
    link = hardware_file.load("h100").link
    assert link.rate_gb_s(1 * MIB) == link.rate_gb_s(16 * MIB) == pytest.approx(220)
    assert link.rate_gb_s(16384 * MIB) == pytest.approx(368)
    assert link.rate_gb_s(512 * MIB) == pytest.approx((220 * 368) ** 0.5)


def test_an_all_reduce_between_nodes_is_as_fast_as_it_was_measured() -> None:
    """4 nodes of 8 B200s, 16 GiB: bus bandwidth 381 GB/s, which is 2 x 31/32 of the size a second
    (nccl-tests, PERFORMANCE.md)."""
    rates = Rates.of(hardware_file.load("b200"), is_fast=True)
    seconds = rates.seconds_of(Collective("all_reduce", "gradients", 1, 1 << 34, 32))
    assert seconds == pytest.approx(2 * 31 / 32 * (1 << 34) / 381e9, rel=2e-3)


def test_no_rate_is_above_the_data_sheet() -> None:
    link = replace(hardware_file.load("h100").link, rates_gb_s=[220, 500])
    assert link.rate_gb_s(16384 * MIB) == link.gb_s.value
    assert hardware_file.load("h100").network.rate_gb_s(MIB) == 50
