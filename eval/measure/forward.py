"""The requests of a column to their results: those in the store are read, the others measured."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tqdm import tqdm

from ropewalk.conf.artifacts.manifest import fingerprint
from ropewalk.conf.schema import Config
from ropewalk.eval.engine.engine import Engine
from ropewalk.eval.measure.columns import Column, dtype, precision
from ropewalk.eval.measure.dealing import deal, from_first, rank_and_size
from ropewalk.eval.measure.store import ResultStore
from ropewalk.eval.requests import Request, Result, digest
from ropewalk.train.base import Base
from ropewalk.train.model import build as models
from ropewalk.train.weights import one_reader
from ropewalk.train.zero import inference
from ropewalk.train.zero.mesh import device

FORMAT = 2  # raise when an engine gives other results for the same requests


def unique(requests: Iterable[Request]) -> dict[str, Request]:
    """By digest, in order: two tasks that ask the same share one pass."""
    return {digest(request): request for request in requests}


def store_of(column: Column, config: Config, cache: Path) -> ResultStore:
    """The results of this model in the cache, shared by runs: a base is measured once."""
    if rank_and_size()[0]:
        return ResultStore(None)
    key = {"model": column.identity, "rope": column.plan.hash, **how_measured(config)}
    return ResultStore(cache / "eval" / fingerprint(key)[:16])


def how_measured(config: Config) -> dict[str, str | int]:
    """What decides the results of a request beside the model."""
    return {
        "precision": precision(config),
        "kernel": config.train.attention.kernel,
        "device": device().type,
        "format": FORMAT,
    }


def is_partitioned(config: Config, base: Base) -> bool:
    """Whether each rank holds a part of the weights: as set, or because a device lacks memory."""
    if config.eval.zero_stage is not None or not dist.is_initialized():
        return config.eval.zero_stage == 3
    numbers = models.parameter_count(base)
    return one_reader.on_reader(lambda: not inference.fits_device(numbers, dtype(config)))


def measure(
    column: Column,
    requests: Mapping[str, Request],
    store: ResultStore,
    config: Config,
    partition: torch.dtype | None,
    text_of: Callable[[Iterable[int]], str] | None = None,
    names: Mapping[str, str] | None = None,
) -> dict[str, Result]:
    """The result of each request by its digest; those in the store are not measured again.

    Collective. `partition`: the dtype of weights in parts; None: whole. `text_of`: the text of new
    tokens. `names`: of the requests' samples, for messages.
    """
    results = dict(from_first(store.results))
    pending = [request for name, request in requests.items() if name not in results]
    if pending:
        options = {"chunk_tokens": config.eval.chunk_tokens, "text_of": text_of, "names": names}
        with engine(column, config.eval.batch_tokens, partition, **options) as ready:
            for request, result in passes(ready, pending, column.label):
                results[digest(request)] = result
                store.append(digest(request), result)
    return {name: results[name] for name in requests}


def passes(
    engine: Engine, requests: Sequence[Request], label: str
) -> Iterator[tuple[Request, Result]]:
    """Each request with its result. The batches are dealt over the ranks; a bar shows time left."""
    parts = engine.batches(requests)
    hidden = True if rank_and_size()[0] else None
    total = sum(request.tokens for request in requests)
    with tqdm(total=total, desc=label, unit="token", disable=hidden, leave=False) as bar:
        rounds = chain.from_iterable(deal(parts, engine.measure, in_step=engine.body is not None))
        for part, results in zip(parts, rounds, strict=True):
            yield from zip(part, results, strict=True)
            bar.update(sum(request.tokens for request in part))


@contextmanager
def engine(
    column: Column, batch_tokens: int, partition: torch.dtype | None, **options: Any
) -> Iterator[Engine]:
    """The column's model, loaded and proved. `options`: of the engine."""
    options["label"] = column.label
    if partition is None:
        yield Engine(column.load(), batch_tokens, **options)
        return
    model = column.load(deepspeed_config=inference.inference_config(partition))
    body = inference.partitioned_body(model)
    models.prove_in_engine(model, column.plan, column.when)
    try:
        yield Engine(model, batch_tokens, body, **options)
    finally:
        inference.release(body)
