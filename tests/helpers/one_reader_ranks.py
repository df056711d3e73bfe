"""Programs of a rank in test_one_reader.py: a base is built where one rank alone has its files."""

import hashlib
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from host_memory import anonymous_growth

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import YarnConfig
from ropewalk.train.base import Base, base_config
from ropewalk.train.model import build
from ropewalk.train.rope import plan as rope_plan
from ropewalk.train.rope.plan import RopePlan
from ropewalk.train.weights import one_reader


def own_folder(parent: Path) -> Path:
    """That of the first rank has weights; that of the others has a config only."""
    return parent / ("with weights" if dist.get_rank() == 0 else "config only")


def plan_of(base: Base) -> RopePlan:
    return rope_plan.make(YarnConfig(method="yarn", factor=8.0), base_config(base), "in the test")


def tensors(model: Any) -> dict[str, tuple[str, str]]:
    """Dtype and digest of every parameter and buffer."""
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
    return {
        name: (str(t.dtype), hashlib.sha256(t.detach().cpu().float().numpy().tobytes()).hexdigest())
        for name, t in named
    }


def built(parents: list[Path], dtype: torch.dtype) -> list[Any]:
    """The tensors of the model below each of `parents`, and whether it is in training mode."""
    results = []
    for parent in parents:
        base = Base(str(own_folder(parent)))
        model = build.build(base, plan_of(base), dtype=dtype)
        results.append((tensors(model), model.training))
    return results


def refusal(parent: Path) -> str:
    base = Base(str(own_folder(parent)))
    try:
        build.build(base, plan_of(base), dtype=torch.float32)
    except ConfigError as error:
        return str(error)
    return ""


def error_of_the_reader() -> str:
    """Not of our own: a full disk, a bug."""

    def work() -> None:
        raise KeyError("of the reader")

    try:
        one_reader.on_reader(work)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def growth(parent: Path, dtype: torch.dtype) -> float:
    """MiB of this rank's highest anonymous memory while it builds the model."""
    base = Base(str(own_folder(parent)))
    plan = plan_of(base)
    with anonymous_growth() as result:
        model = build.build(base, plan, dtype=dtype)
    assert model.dtype == dtype
    return result.highest
