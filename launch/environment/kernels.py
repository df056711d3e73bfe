"""Which attention kernels can be used on this machine's GPUs, and why others cannot.

The room of attention decides (train/kernel_packages.py); here it is asked without loading torch, so
an installed package counts as one that loads. `--probe` loads it.
"""

from collections.abc import Iterator, Sequence

from ropewalk.launch.environment.gpus import Gpu
from ropewalk.train.kernel_packages import PACKAGES, auto_choice, why_not_there, why_unusable
from ropewalk.train.torch_build import TorchBuild

INSTALLED = "its package is here and it fits (not loaded: --probe loads it)"
USABLE = "can be used"


def rows(gpus: Sequence[Gpu], build: TorchBuild | None) -> Iterator[tuple[str, str]]:
    """Name and answer of each kernel, and what `auto` takes. `gpus`: the visible ones."""
    for name, package in PACKAGES.items():
        answers = {
            major: why_unusable(package, major, why_not_there) for major in majors(gpus, build)
        }
        yield f"kernel {name}", _joined({m: why or INSTALLED for m, why in answers.items()})
    yield "kernel sdpa", USABLE
    chosen = {m: auto_choice(m, why_not_there)[0] for m in majors(gpus, build)}
    yield "kernel auto", f"takes {_joined(chosen)}"


def majors(gpus: Sequence[Gpu], build: TorchBuild | None) -> list[int | None]:
    """The major compute capabilities of torch's GPUs; None for a machine without one, and for a
    torch that is built without CUDA."""
    if build is None or build.cuda is None:
        return [None]
    known = sorted({gpu.capability[0] for gpu in gpus if gpu.capability})
    return [*known] if known else [None]


def _joined(answers: dict[int | None, str]) -> str:
    if len(set(answers.values())) == 1:
        return next(iter(answers.values()))
    return "; ".join(f"on {major}.x: {answer}" for major, answer in answers.items())
