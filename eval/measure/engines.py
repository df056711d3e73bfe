"""The engine that measures a column, as the settings choose it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.eval.engine.engine import Engine
from ropewalk.eval.engine_sp.engine import SequenceParallelEngine
from ropewalk.eval.measure.columns import Column
from ropewalk.eval.measure.dealing import rank_and_size
from ropewalk.train.model import build as models
from ropewalk.train.zero import inference
from ropewalk.train.zero.mesh import Mesh

AnyEngine = Engine | SequenceParallelEngine


@contextmanager
def engine(
    column: Column, config: Config, partition: torch.dtype | None, **options: Any
) -> Iterator[AnyEngine]:
    """The column's model, loaded and proved, in its engine. `options`: of the engine.

    `partition`: the dtype of weights in parts on all ranks; None: whole on each.
    """
    options["label"] = column.label
    if partition is None:
        yield _engine(config, column.load(), None, options)
        return
    model = column.load(deepspeed_config=inference.inference_config(partition))
    body = inference.partitioned_body(model)
    models.prove_in_engine(model, column.plan, column.when)
    try:
        yield _engine(config, model, body, options)
    finally:
        inference.release(body)


def _engine(
    config: Config, model: PreTrainedModel, body: nn.Module | None, options: dict[str, Any]
) -> AnyEngine:
    tokens, sp_size = config.eval.batch_tokens, config.eval.sp_size
    if sp_size == 1:
        return Engine(model, tokens, body, chunk_tokens=config.eval.chunk_tokens, **options)
    mesh, kernel = Mesh(*rank_and_size(), sp_size), config.train.attention.kernel
    return SequenceParallelEngine(model, mesh, tokens, body, kernel=kernel, **options)


def refuse_unfit_ranks(sp_size: int) -> None:
    """Raises: ConfigError when `sp_size` does not divide the ranks that measure."""
    if (ranks := rank_and_size()[1]) % sp_size:
        raise ConfigError(
            f"eval.sp_size is {sp_size}; it must divide the number of ranks that measure, {ranks}; "
            f"set eval.ranks_per_node={sp_size}, or eval.sp_size=1"
        )
