"""The requests of a column to their results: those in the store are read, the others measured."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import torch
import torch.distributed as dist

from ropewalk.conf.artifacts.locks import wait_for_lock
from ropewalk.conf.artifacts.manifest import fingerprint
from ropewalk.conf.schema import Config
from ropewalk.eval.measure.columns import Column, dtype, precision
from ropewalk.eval.measure.dealing import deal, from_first, rank_and_size
from ropewalk.eval.measure.engines import AnyEngine, engine, parts
from ropewalk.eval.measure.progress import Progress
from ropewalk.eval.measure.store import ResultStore
from ropewalk.eval.requests import Request, Result, digest
from ropewalk.train.base import Base
from ropewalk.train.model import build as models
from ropewalk.train.rope import plan as plans
from ropewalk.train.weights import one_reader
from ropewalk.train.zero import inference
from ropewalk.train.zero.mesh import device

FORMAT = 2  # raise when an engine gives other results for the same requests


def unique(requests: Iterable[Request]) -> dict[str, Request]:
    """By digest, in order: two tasks that ask the same share one pass."""
    return {digest(request): request for request in requests}


def store_of(column: Column, config: Config, cache: Path) -> ResultStore:
    """The results of this model in the cache, shared by runs: a base is measured once."""
    return ResultStore(None if rank_and_size()[0] else store_folder(column, config, cache))


def store_folder(column: Column, config: Config, cache: Path) -> Path:
    """Named by all that decides the results."""
    rope = plans.hash_of(column.plan.json())
    key = {"model": column.identity, "rope": rope, **how_measured(config)}
    return cache / "eval" / fingerprint(key)[:16]


def how_measured(config: Config) -> dict[str, str | int]:
    """What decides the results of a request beside the model."""
    facts: dict[str, str | int] = {
        "precision": precision(config),
        "kernel": config.train.attention.kernel,
        "device": device().type,
        "format": FORMAT,
    }
    if config.eval.backend != "transformers":
        facts["backend"] = config.eval.backend
    return facts if config.eval.sp_size == 1 else facts | {"sp_size": config.eval.sp_size}


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
    progress: Progress | None = None,
) -> dict[str, Result]:
    """The result of each request by its digest; those in the store are not measured again.

    Collective. `partition`: the dtype of weights in parts; None: whole. `text_of`: the text of new
    tokens. `names`: of the requests' samples, for messages.
    """
    if store.damaged:
        with written_alone(store, column.label):
            pass  # so that lines of requests that nobody asks for now are told once
    results = dict(from_first(store.results))
    if any(name not in results for name in requests):
        with written_alone(store, column.label):
            results = dict(from_first(store.results))
            pending = {name: r for name, r in requests.items() if name not in results}
            if pending:
                progress = progress or Progress([])
                start = progress.begin(column.label)
                sp_size, options = config.eval.sp_size, {"text_of": text_of, "names": names}
                for asked in parts(config, pending):
                    with engine(column, config, partition, asked, **options) as ready:
                        for part in passes(ready, requests.values(), asked, sp_size):
                            store.extend(part)
                            results |= part
                            progress.advance(column.label, [requests[name] for name in part])
                progress.end(column.label, start)
    return {name: results[name] for name in requests}


@contextmanager
def written_alone(store: ResultStore, label: str) -> Iterator[None]:
    """Hold the lock of the store's folder; what another process wrote before is read, and damaged
    lines are removed."""
    if store.folder is None:
        yield
        return
    with wait_for_lock(store.folder, f"eval: {label}"):
        store.read_again()
        yield


def passes(
    engine: AnyEngine,
    requests: Iterable[Request],
    pending: Mapping[str, Request],
    sp_size: int = 1,
) -> Iterator[dict[str, Result]]:
    """The results of the pending requests, a batch at a time, dealt over the ranks, or over the
    groups of `sp_size` ranks that share a sequence.

    The batches are those of all requests, so that an evaluation which goes on after its end makes
    the same passes as one without an interruption.
    """
    names = {id(request): name for name, request in pending.items()}
    batches = engine.batches(list(requests))
    pending_of = [[r for r in batch if id(r) in names] for batch in batches]
    turns = [part for part in pending_of if part]
    in_step = engine.body is not None
    rounds = deal(turns, engine.measure, in_step=in_step, sp_size=sp_size)
    for part, results in zip(turns, chain.from_iterable(rounds), strict=True):
        yield {names[id(r)]: result for r, result in zip(part, results, strict=True)}
