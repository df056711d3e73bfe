"""The peak of this machine's device, for MFU; the figures are those of conf/hardware/."""

import torch

from ropewalk.conf import hardware_file


def peak_flops(peak_tflops: float | None) -> float | None:
    """This device's peak in FLOP/s: `peak_tflops` if set, else as published; None if unknown."""
    if peak_tflops is not None:
        return peak_tflops * 1e12
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    known = hardware_file.of_device(name)
    return None if known is None else known.bf16_tflops.value * 1e12
