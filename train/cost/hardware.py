"""Published peaks of devices: dense matrix FLOP/s, memory and (one-way) link bandwidth.

Sources: NVIDIA's data sheets of A100 (80 GB SXM), H100 (SXM5, PCIe, NVL), H200 (SXM) and HGX B200;
AMD's of MI300X. Figures "with sparsity" are halved, since no training uses them. A power or clock
limit makes a device's real peak lower.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class DevicePeak:
    """Dense bf16, the device's memory, and the link to its neighbours in the machine."""

    name: str
    bf16_tflops: float
    memory_tb_s: float
    link_gb_s: float


# the first match counts, so a variant stands before its family
DEVICE_PEAKS = (
    DevicePeak("H100 PCIe", 756.0, 2.0, 300.0),
    DevicePeak("H100 NVL", 835.5, 3.94, 300.0),
    DevicePeak("H100", 989.4, 3.35, 450.0),
    DevicePeak("H200 NVL", 835.5, 4.8, 450.0),
    DevicePeak("H200", 989.4, 4.8, 450.0),
    DevicePeak("A100", 312.0, 2.039, 300.0),
    DevicePeak("GB200", 2500.0, 8.0, 900.0),
    DevicePeak("B200", 2250.0, 8.0, 900.0),
    DevicePeak("MI300X", 1307.4, 5.3, 448.0),
)


def peak_of(device_name: str) -> DevicePeak | None:
    """The peak of a device by the name that torch reports; None outside the table."""
    name = device_name.lower()
    return next((peak for peak in DEVICE_PEAKS if peak.name.lower() in name), None)


def peak_flops(peak_tflops: float | None) -> float | None:
    """This device's peak in FLOP/s: `peak_tflops` if set, else as published; None if unknown."""
    if peak_tflops is not None:
        return peak_tflops * 1e12
    known = peak_of(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
    return None if known is None else known.bf16_tflops * 1e12
