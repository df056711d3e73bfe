"""The numbers of the parallel training against those of one process, and against transformers."""

import statistics
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ropewalk.launch.check.line import Line
from ropewalk.launch.check.small_training import Measured, SmallTraining
from ropewalk.train.loss_model import LossModel
from ropewalk.train.zero.mesh import device

RTOL = {"cpu": 1e-5, "cuda": 1e-4}
"""Relative, in fp32. The matrix of docs/parity.md stays below 1.4e-6 on CPUs; a GPU's kernels sum
in another order for each shape."""
WAY_OUT = (
    "do not train: this machine, these versions or these settings give another result in "
    "parallel; try train.zero_stage=1, train.sp_size=1 and train.memory.* one by one, and report "
    "it with check.json"
)


@dataclass(frozen=True)
class Difference:
    """Relative, of the parallel numbers from those of one process."""

    loss: float
    grad_norm: float
    gradient: float
    """The largest of a parameter, in its norm."""
    parameter: str


def difference(measured: Measured, expected: Measured) -> Difference:
    """A parameter that only one of them has a gradient for is infinitely far."""
    apart = {
        name: _distance(measured.gradients.get(name), expected.gradients.get(name))
        for name in {**expected.gradients, **measured.gradients}
    }
    worst = max(apart, key=lambda name: apart[name])
    return Difference(
        _relative(measured.loss, expected.loss),
        _relative(measured.grad_norm, expected.grad_norm),
        apart[worst],
        worst,
    )


def _distance(measured: torch.Tensor | None, expected: torch.Tensor | None) -> float:
    if measured is None or expected is None or measured.shape != expected.shape:
        return float("inf")
    norm, distance = float(expected.norm()), float((measured - expected).norm())
    return distance / norm if norm else distance


def _relative(measured: float, expected: float) -> float:
    return abs(measured / expected - 1) if expected else abs(measured)


def parallel_lines(measured: Measured, expected: Measured, what: str) -> list[Line]:
    """Loss, norm and gradients of one form of the training. `what` names it in the lines."""
    apart, bar = difference(measured, expected), RTOL[device().type]
    values = {
        f"{what}: loss": (apart.loss, f"{measured.loss:.6f}, {expected.loss:.6f} in one process"),
        f"{what}: gradient norm": (
            apart.grad_norm,
            f"{measured.grad_norm:.6g}, {expected.grad_norm:.6g} in one process",
        ),
        f"{what}: gradients": (
            apart.gradient,
            f"of {len(expected.gradients)} parameters the furthest is {apart.parameter}",
        ),
    }
    return [
        Line.judged(name, distance <= bar, f"{distance:.1e} apart ({both})", f"{bar:.0e}", WAY_OUT)
        for name, (distance, both) in values.items()
    ]


def same_on_all_ranks(measured: Measured, small: SmallTraining) -> Line:
    """Every rank computed the same batch by itself: a device that computes wrong differs."""
    pairs, bar = small.ranks.gather((measured.loss, measured.grad_norm)), RTOL[device().type]
    usual = [statistics.median(values) for values in zip(*pairs, strict=True)]
    apart = [max(map(_relative, pair, usual)) for pair in pairs]
    others = [str(rank) for rank, distance in enumerate(apart) if not distance <= bar]
    return Line.judged(
        "one batch on each rank alone",
        not others,
        f"losses and norms {max(apart):.1e} apart on {len(pairs)} ranks"
        + (f"; rank {', '.join(others)} differs" if others else ""),
        f"{bar:.0e}",
        "take the rank that differs out of the job and test its device",
    )


def transformers_line(measured: Measured, module: LossModel, small: SmallTraining) -> Line:
    """The loss against transformers' own attention on each document alone."""
    name, config = "loss: against transformers, each document alone", small.config
    if config.train.attention.s2_group or config.train.mixed_windows:
        return Line.skipped(name, "S2-Attn or mixed windows train on another attention or table")
    if not config.data.document_mask:
        return Line.skipped(name, "data.document_mask=false: documents see one another")
    expected, bar = _alone(module, small), RTOL[device().type]
    apart = _relative(measured.loss, expected)
    return Line.judged(
        name,
        apart <= bar,
        f"{apart:.1e} apart ({measured.loss:.6f}, {expected:.6f} by transformers)",
        f"{bar:.0e}",
        WAY_OUT,
    )


@torch.no_grad()
def _alone(module: LossModel, small: SmallTraining) -> float:
    """The mean loss of all documents, by transformers' eager attention."""
    model, total, count = module.model, 0.0, 0
    kernel = str(model.config._attn_implementation)
    model.set_attn_implementation("eager")
    for sequence in range(len(small.data.lengths)):
        for document in small.data.documents(sequence):
            ids = torch.from_numpy(document)[None].to(device())
            logits = model(input_ids=ids, use_cache=False).logits[0].double()
            total += float(F.cross_entropy(logits[:-1], ids[0, 1:], reduction="sum"))
            count += len(document) - 1
    model.set_attn_implementation(kernel)
    return total / count
