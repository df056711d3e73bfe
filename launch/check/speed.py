"""How fast each rank multiplies, and copies between its host and its device."""

import time
from collections.abc import Callable
from typing import Any

import torch

from ropewalk.conf.hardware_file import Hardware
from ropewalk.launch.check.line import Line
from ropewalk.launch.check.rates import Rates, judged
from ropewalk.launch.check.together import Ranks
from ropewalk.train.zero.mesh import device

SIZE = {"cpu": 256, "cuda": 8192}
TRIES = {"cpu": 40, "cuda": 20}
SLOWEST_SHARE = {"cpu": 0.5, "cuda": 0.93}
"""Of the median rank's rate. GPUs of one model are within some percent of one another; CPU ranks
share cores with other work."""
HOST_LINK = "host link"
HOST_LINK_BYTES = 256 << 20
SLOWEST_LINK = 0.7
"""Of the median: GPUs may share a switch to their host."""


def multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a @ b


def matmul_line(ranks: Ranks, hardware: Hardware | None) -> Line:
    """Collective. All ranks at once, as in a step; each rank's best of some tries."""
    kind, where = device().type, device()
    dtype = torch.bfloat16 if kind == "cuda" else torch.float32
    a, b = (torch.ones(SIZE[kind], SIZE[kind], dtype=dtype, device=where) for _ in range(2))
    ranks.barrier()
    seconds = min(timed(lambda: multiply(a, b)) for _ in range(TRIES[kind]))
    unit, scale = ("TFLOP/s", 1e12) if kind == "cuda" else ("GFLOP/s", 1e9)
    rates = ranks.gather(2 * SIZE[kind] ** 3 / seconds / scale)
    return judged(
        Rates(
            "matrix product",
            rates,
            unit,
            SLOWEST_SHARE[kind],
            "all ranks wait for the slowest: look for heat, a power limit or other processes "
            "there, or leave it out",
            None if hardware is None else hardware.matmul_tflops.value,
        )
    )


def host_link_line(ranks: Ranks, hardware: Hardware | None) -> Line:
    """Collective. Pinned copies of all ranks at once; the slower direction of each."""
    if device().type == "cpu":
        return Line.skipped(HOST_LINK, "no CUDA device: nothing is copied to one")
    pinned = torch.empty(HOST_LINK_BYTES, dtype=torch.uint8, pin_memory=True)
    there = torch.empty_like(pinned, device=device())
    ranks.barrier()
    copies = (lambda: there.copy_(pinned), lambda: pinned.copy_(there))
    slowest = max(min(timed(copy) for _ in range(TRIES["cuda"])) for copy in copies)
    return judged(
        Rates(
            HOST_LINK,
            ranks.gather(HOST_LINK_BYTES / slowest / 1e9),
            "GB/s",
            SLOWEST_LINK,
            "offloads and loading go over it: look at the width of the PCIe link (nvidia-smi -q), "
            "and bind ranks to the cores beside their GPU (train.launcher.bind_numa)",
            None if hardware is None else hardware.host_link_gb_s.value,
        )
    )


def timed(work: Callable[[], Any]) -> float:
    """Seconds until the device is done."""
    _wait()
    started = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
