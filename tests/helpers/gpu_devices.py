"""The GPUs that a test marked `gpu` needs, and how many this machine has."""

from collections import Counter
from collections.abc import Iterable

import torch

NO_GPU_TEST_RAN = "no gpu test ran"


def why_missing(count: int = 1, memory_gb: float = 0.0) -> str:
    """Why this machine cannot run a test on `count` GPUs of `memory_gb` each; empty if it can."""
    devices = available()
    if devices < count:
        return f"needs {count} CUDA device{'s' * (count > 1)}, this machine has {devices or 'none'}"
    if not memory_gb:
        return ""
    memory = min(torch.cuda.get_device_properties(n).total_memory for n in range(count)) / 1e9
    return "" if memory >= memory_gb else f"needs {memory_gb:g} GB a GPU, this one has {memory:.0f}"


def available() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def ranks_to_start() -> int:
    """The largest power of two up to 8 that the GPUs allow: batches of 8 sequences divide by it."""
    return max(n for n in (1, 2, 4, 8) if n <= max(1, available()))


def summary(run: int, reasons: Iterable[str]) -> str:
    """One line on the tests marked `gpu`: how many ran, and why the others did not."""
    counts = Counter(reasons)
    skipped = "; ".join(f"{number} skipped: {reason}" for reason, number in counts.most_common())
    head = f"{run} gpu tests ran" if run else NO_GPU_TEST_RAN.upper()
    return f"{head}; {skipped}" if skipped else head
