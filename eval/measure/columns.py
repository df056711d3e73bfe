"""The models of a run, each measured in turn: the columns of results.json."""

import gc
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from tqdm import tqdm
from transformers import PreTrainedModel

from ropewalk.conf.artifacts.manifest import fingerprint, read_json, write_json
from ropewalk.conf.log import log
from ropewalk.conf.schema import Config
from ropewalk.conf.sources import SYNTHETIC
from ropewalk.data.dataset import DataArtifacts, describe
from ropewalk.eval.measure import suite as suites
from ropewalk.eval.measure.dealing import deal, from_first, rank_and_size
from ropewalk.eval.measure.score import Engine
from ropewalk.eval.measure.store import ResultStore
from ropewalk.eval.requests import Request, Result, digest
from ropewalk.eval.tasks.task import EvalSuite, Sample
from ropewalk.train.base import Base
from ropewalk.train.identity import folder_identity
from ropewalk.train.model import build as models
from ropewalk.train.rope.plan import RopePlan
from ropewalk.train.weights import one_reader
from ropewalk.train.zero import inference
from ropewalk.train.zero.mesh import device

RESULTS = "results.json"
FORMAT = 1  # raise when an engine gives other results for the same requests


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


def evaluate(config: Config, base: Base, run_dir: Path, folder: Path) -> None:
    """Measure every column, and write results.json and the samples into `folder`. Collective.

    Raises: DataError when no held-out text is long enough.
    """
    plan, cache = RopePlan.read(run_dir / "rope.json"), Path(config.cache_dir).expanduser()
    suite = suites.build_suite(config, plan, DataArtifacts.of(run_dir, cache))
    samples = suites.build_samples(suite)
    requests = unique(sample.request for part in samples.values() for sample in part)
    partition = dtype(config) if is_partitioned(config, base) else None
    results: dict[str, Mapping[str, Result]] = {}
    for column in columns(config, base, plan, run_dir / "train" / "model"):
        store = store_of(column, config, cache)
        results[column.label] = measure(column, requests, store, config, partition)
        log.info(f"eval: {column.label} measured")
        gc.collect()
    if rank_and_size()[0] == 0:
        rope = read_json(run_dir / "rope.json")
        write_json(folder / RESULTS, content(config, base, suite, samples, results, rope))
        for label, by_request in results.items():
            write_samples(folder / "samples", label, samples, by_request)


def content(
    config: Config,
    base: Base,
    suite: EvalSuite,
    samples: Mapping[str, Sequence[Sample]],
    results: Mapping[str, Mapping[str, Result]],
    rope: dict[str, Any],
) -> dict[str, Any]:
    """The content of `results.json`. `rope`: that of `rope.json`."""
    of_base = results.get("base")
    rows = {
        label: suites.rows(suite, samples, by_request, None if label == "base" else of_base)
        for label, by_request in results.items()
    }
    return {
        "schema": 1,
        "base_window": suite.base_window,
        "length": suite.length,
        "documents": len({window.origin for window in suite.windows}),
        "windows": len(suite.windows),
        "layout": suite.layout,
        "targets": suite.targets,
        "models": rows,
        "verdicts": suites.verdicts(rows, suite.base_window, suite.length),
        "notes": notes(config, base, rope, suite.layout),
    }


def unique(requests: Iterable[Request]) -> dict[str, Request]:
    """By digest, in order: two tasks that ask the same share one pass."""
    return {digest(request): request for request in requests}


def store_of(column: Column, config: Config, cache: Path) -> ResultStore:
    """The results of this model in the cache, shared by runs: a base is measured once."""
    if rank_and_size()[0]:
        return ResultStore(None)
    key = {
        "model": column.identity,
        "rope": column.plan.hash,
        "precision": precision(config),
        "kernel": config.train.attention.kernel,
        "device": device().type,
        "format": FORMAT,
    }
    return ResultStore(cache / "eval" / fingerprint(key)[:16])


def write_samples(
    folder: Path, label: str, samples: Mapping[str, Sequence[Sample]], results: Mapping[str, Result]
) -> None:
    """The results of a column sample by sample, which a comparison pairs without the models."""
    store = ResultStore(folder / label)
    for name, result in results.items():
        store.append(name, result)
    lines = [
        {"task": task, "id": s.id, "unit": s.unit, "request": digest(s.request), **s.facts}
        for task, part in samples.items()
        for s in part
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "samples.jsonl").write_text(text, encoding="utf-8")


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
) -> dict[str, Result]:
    """The result of each request by its digest; those in the store are not measured again.

    Collective. `partition`: the dtype of weights in parts; None: whole.
    """
    results = dict(from_first(store.results))
    pending = [request for name, request in requests.items() if name not in results]
    if pending:
        with engine(column, config.eval.batch_tokens, partition) as ready:
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
def engine(column: Column, batch_tokens: int, partition: torch.dtype | None) -> Iterator[Engine]:
    """The column's model, loaded and proved."""
    if partition is None:
        yield Engine(column.load(), batch_tokens)
        return
    model = column.load(deepspeed_config=inference.inference_config(partition))
    body = inference.partitioned_body(model)
    models.prove_in_engine(model, column.plan, column.when)
    try:
        yield Engine(model, batch_tokens, body)
    finally:
        inference.release(body)


def columns(config: Config, base: Base, plan: RopePlan, trained: Path) -> Iterator[Column]:
    """A run from scratch has only `extended`; a run without scaling has no `rescaled`."""
    kwargs: dict[str, Any] = {
        "dtype": dtype(config),
        "attention_kernel": config.train.attention.kernel,
        "device": device(),
    }
    if base.scratch is None:
        parts = [("base", plan.unscaled, "of the base")]
        if plan.method != "none":
            parts.append(("rescaled", plan, "of rescaled only"))
        for label, its_plan, when in parts:
            load = partial(models.build, base, its_plan, when=when, **kwargs)
            yield Column(label, load, its_plan, when, lambda: base.identity)
    kwargs["trust_remote_code"] = base.trust_remote_code
    load = partial(models.load_trained, trained, plan, **kwargs)
    identity = partial(folder_identity, trained, Path(config.cache_dir).expanduser())
    yield Column("extended", load, plan, "after reload", identity)


def notes(config: Config, base: Base, rope: dict[str, Any], layout: Mapping[str, Any]) -> list[str]:
    """Caveats that a reader of the numbers must know. `rope`: the content of `rope.json`."""
    lines = [
        f"Held-out documents are chosen by a hash of their id ({config.data.heldout_share:.0%} of "
        "them); intervals are 95%, bootstrapped over documents.",
        f"Held-out {describe(layout)}.",
    ]
    sources = config.data.sources
    synthetic = [name for name, source in sources.items() if source.kind in SYNTHETIC]
    if synthetic:
        shares = ", ".join(f"{name} {sources[name].weight:g}" for name in synthetic)
        lines.append(
            f"The training mixture has synthetic retrieval ({shares} of the tokens' weight): "
            "passkey here measures a task of the same form as in training, on text and keys that "
            "training has not seen."
        )
    if documents := rope.get("calibrated_on"):
        lines.append(
            f"The rope plan was calibrated on {len(documents)} of the held-out documents, which "
            "are measured here again; the calibration's own figures are of other documents."
        )
    if base.scratch is not None:
        text = "This run makes a base from scratch: there is no model before it to compare with."
        lines.append(text)
    if precision(config) == "bf16":
        lines.append("The models were measured in bf16.")
    return lines
