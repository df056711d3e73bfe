"""What `seed` drives. All of it is a function of the seed and the position in the run.

    weights of a model from scratch   model.build            which sequences a step reads
    data.reading.steps an adapter's first weights        adapters.attach        dropout
    here, anew at each step

No generator's state is saved: a step repeated after a resume draws the same numbers. Dropout is
drawn by rank, so another number of ranks gives another draw of the same distribution; all else is
equal.
"""

import os

import torch

from ropewalk.conf.artifacts.manifest import fingerprint


def use_deterministic_kernels() -> None:
    """Allow only kernels that sum in a fixed order; others raise.

    Call it before using the device.
    """
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # without it cuBLAS may take another way each time
    torch.use_deterministic_algorithms(True)
    # this would only find reads of uninitialised memory, at a cost
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def seed_step(seed: int, phase: int, step: int, rank: int) -> None:
    """Seed torch's generators, the device's too, for one step (from 0) of one rank."""
    torch.manual_seed(int(fingerprint(["dropout", seed, phase, step, rank])[:15], 16))
