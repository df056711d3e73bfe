""""""

from collections.abc import Callable, Iterator
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
    """The three columns; a base made from scratch has none before it, and without scaling there is nothing rescaled."""
    kernel = config.train.attention.kernel
    if base.scratch is None:
        yield (
            "base",
            lambda: models.build(
                base, plan.unscaled, dtype=dtype, attention_kernel=kernel, when="of the base"
            ),
        )
        if plan.method != "none":
            yield (
                "rescaled",
                lambda: models.build(
                    base, plan, dtype=dtype, attention_kernel=kernel, when="of rescaled only"
                ),
            )
    yield (
        "extended",
        lambda: models.load_trained(
            run_dir / "train" / "model", plan, dtype=dtype, attention_kernel=kernel
        ),
    )
