"""The engine that measures a column, as the settings choose it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.eval.engine.decoding import End, TextOf
from ropewalk.eval.engine.engine import Engine
from ropewalk.eval.engine_sp.engine import SequenceParallelEngine
from ropewalk.eval.engine_vllm.engine import VllmEngine, is_decoded, job, longest
from ropewalk.eval.engine_vllm.folder import end_tokens, model_folder
from ropewalk.eval.engine_vllm.process import started
from ropewalk.eval.measure.columns import Column, precision
from ropewalk.eval.measure.dealing import rank_and_size
from ropewalk.eval.requests import Request
from ropewalk.train.model import build as models
from ropewalk.train.zero import inference
from ropewalk.train.zero.mesh import Mesh

AnyEngine = Engine | SequenceParallelEngine | VllmEngine
DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
"""As vLLM names them."""


def parts(config: Config, pending: Mapping[str, Request]) -> Iterator[dict[str, Request]]:
    """The requests by the engine that answers them; first those that vLLM decodes."""
    by_vllm = {}
    if config.eval.backend == "vllm":
        by_vllm = {name: request for name, request in pending.items() if is_decoded(request)}
    others = {name: request for name, request in pending.items() if name not in by_vllm}
    yield from filter(None, (by_vllm, others))


@contextmanager
def engine(
    column: Column,
    config: Config,
    partition: torch.dtype | None,
    requests: Mapping[str, Request],
    **options: Any,
) -> Iterator[AnyEngine]:
    """The column's model, loaded and proved, in the engine of `requests`, which are one of `parts`.

    `partition`: the dtype of weights in parts on all ranks; None: whole on each. `options`: of the
    engine.
    """
    if config.eval.backend == "vllm" and all(map(is_decoded, requests.values())):
        with _vllm(column, config, longest(requests), options["text_of"]) as by_vllm:
            yield by_vllm
        return
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


@contextmanager
def _vllm(
    column: Column, config: Config, tokens: int, text_of: TextOf | None
) -> Iterator[VllmEngine]:
    """vLLM on this rank's device, or with one rank on all. `tokens`: of the longest sequence."""
    settings, device = config.eval.vllm, None
    if torch.cuda.is_available() and rank_and_size()[1] > 1:
        device = torch.cuda.current_device()
    files = model_folder(column.base, column.plan, column.trained, column.label, tokens)
    with files as folder:
        end = End(end_tokens(folder), text_of)
        llm = {"dtype": DTYPES[precision(config)], "max_model_len": tokens}
        llm["trust_remote_code"] = column.base.trust_remote_code
        with started(settings.python, job(folder, settings, end, **llm), device) as vllm:
            yield VllmEngine(vllm, config.eval.batch_tokens, end)


def refuse_unfit_ranks(sp_size: int) -> None:
    """Raises: ConfigError when `sp_size` does not divide the ranks that measure."""
    if (ranks := rank_and_size()[1]) % sp_size:
        raise ConfigError(
            f"eval.sp_size is {sp_size}; it must divide the number of ranks that measure, {ranks}; "
            f"set eval.ranks_per_node={sp_size}, or eval.sp_size=1"
        )
