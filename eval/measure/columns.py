"""The models of a run: the columns of results.json, each loaded when its turn comes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel

from ropewalk.conf.schema import Config
from ropewalk.data.tokenizer import RunTokenizer
from ropewalk.train.base import Base
from ropewalk.train.identity import folder_identity
from ropewalk.train.model import build as models
from ropewalk.train.rope.plan import RopePlan
from ropewalk.train.zero.mesh import device


class Load(Protocol):
    def __call__(self, *, deepspeed_config: dict[str, Any] | None = None) -> PreTrainedModel: ...


@dataclass(frozen=True)
class Column:
    """A column of the results: its name, the function that loads its model, and its plan."""

    label: str
    load: Load
    plan: RopePlan
    when: str
    """When its proof is made, for messages."""
    model_identity: Callable[[], str]
    model: str
    """The model's name, without a user's path."""
    base: Base
    """Its location; of a trained model that of its base, which has the same architecture."""
    tokenizer: RunTokenizer | None = None
    """None: that of the run."""
    trained: Path | None = None
    """The folder of a trained model."""

    @property
    def identity(self) -> str:
        """Fingerprint of its weights. The first look reads them all."""
        return self.model_identity()


def precision(config: Config) -> str:
    """As set; else the training's on a GPU, and fp32 on a CPU."""
    unset = config.train.precision if torch.cuda.is_available() else "fp32"
    return config.eval.precision or unset


def dtype(config: Config) -> torch.dtype:
    return torch.bfloat16 if precision(config) == "bf16" else torch.float32


def build_kwargs(config: Config) -> dict[str, Any]:
    return {
        "dtype": dtype(config),
        "attention_kernel": config.train.attention.kernel,
        "device": device(),
    }


def run_labels(from_scratch: bool, plan: RopePlan) -> list[str]:
    """A run from scratch has only `extended`; a run without scaling has no `rescaled`."""
    if from_scratch:
        return ["extended"]
    return ["base", "extended"] if plan.method == "none" else ["base", "rescaled", "extended"]


def run_columns(config: Config, base: Base, plan: RopePlan, trained: Path) -> Iterator[Column]:
    """The columns of a run, in order."""
    kwargs = build_kwargs(config)
    parts = {"base": (plan.unscaled, "of the base"), "rescaled": (plan, "of rescaled only")}
    for label in run_labels(base.scratch is not None, plan)[:-1]:
        its_plan, when = parts[label]
        load = partial(models.build, base, its_plan, when=when, **kwargs)
        yield Column(label, load, its_plan, when, lambda: base.identity, base.name, base)
    kwargs["trust_remote_code"] = base.trust_remote_code
    load = partial(models.load_trained, trained, plan, **kwargs)
    identity = partial(folder_identity, trained, Path(config.cache_dir).expanduser())
    yield Column(
        "extended", load, plan, "after reload", identity, config.name, base, trained=trained
    )
