"""The model columns of results.json: base, rescaled, extended."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedModel

from ropewalk.conf.schema import Config
from ropewalk.train.base import Base
from ropewalk.train.model import build as models
from ropewalk.train.rope.plan import RopePlan


def models_compared(
    config: Config, base: Base, plan: RopePlan, run_dir: Path, dtype: torch.dtype
) -> Iterator[tuple[str, Callable[[], PreTrainedModel]]]:
    """Each column with the function that loads its model.

    A run from scratch has only `extended`; a run without scaling has no `rescaled`.
    """
    kernel = config.train.attention.kernel
    build = partial(models.build, base, dtype=dtype, attention_kernel=kernel)
    if base.scratch is None:
        yield "base", partial(build, plan.unscaled, when="of the base")
        if plan.method != "none":
            yield "rescaled", partial(build, plan, when="of rescaled only")
    trained = run_dir / "train" / "model"
    yield (
        "extended",
        partial(models.load_trained, trained, plan, dtype=dtype, attention_kernel=kernel),
    )
