"""Published peaks of devices, beside what the vendors print: with sparsity, and links both ways."""

import pytest

from ropewalk.train.cost.hardware import peak_of

# Names as torch reports them. From the data sheets of NVIDIA and AMD: TFLOP/s of bf16 with
# sparsity, the memory's TB/s, and GB/s of the links in both directions.
DATA_SHEETS = {
    "NVIDIA H100 PCIe": (1512, 2.0, 600),
    "NVIDIA H100 NVL": (1671, 3.94, 600),
    "NVIDIA H100 80GB HBM3": (1978.8, 3.35, 900),
    "NVIDIA H200 NVL": (1671, 4.8, 900),
    "NVIDIA H200": (1978.8, 4.8, 900),
    "NVIDIA A100-SXM4-80GB": (624, 2.039, 600),
    "NVIDIA GB200": (5000, 8.0, 1800),
    "NVIDIA B200": (4500, 8.0, 1800),
    "AMD Instinct MI300X": (2614.8, 5.3, 896),
}


@pytest.mark.parametrize("name", DATA_SHEETS)
def test_a_peak_is_the_data_sheets_without_sparsity_and_one_way(name: str) -> None:
    peak, (sparse_tflops, memory, both_ways) = peak_of(name), DATA_SHEETS[name]
    assert peak is not None
    assert (2 * peak.bf16_tflops, peak.memory_tb_s) == (pytest.approx(sparse_tflops), memory)
    assert 2 * peak.link_gb_s == both_ways


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 4090", "cpu", ""])
def test_another_device_has_no_peak(name: str) -> None:
    assert peak_of(name) is None
