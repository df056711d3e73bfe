"""What `seed` drives, and how. All of it is a function of the seed and of the place in the run; no generator's state is kept.

    weights of a model from scratch   model.build            which sequences a step reads    data.reading.steps
    an adapter's first weights        adapters.attach        dropout                         here, anew at each step

So a step that is done again after a resume draws what it drew. Dropout draws by rank: at another number of ranks it is another draw
of the same distribution, while everything else stays.
"""

import os

import torch

from ropewalk.conf.artifacts.manifest import fingerprint


def use_deterministic_kernels() -> None:
    """Only kernels that sum in one order, or an error that names the one that does not; before anything runs on the device."""
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # without it cuBLAS may take another way each time
    torch.use_deterministic_algorithms(True)
    # it would look for reads of what nobody wrote, at a cost
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def seed_step(seed: int, phase: int, step: int, rank: int) -> None:
    """Seed torch's generators, on the device too, for one step (from 0) of one rank. Recomputed layers draw what they drew."""
    torch.manual_seed(int(fingerprint(["dropout", seed, phase, step, rank])[:15], 16))
