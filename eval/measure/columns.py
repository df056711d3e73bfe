"""The models of a run, each measured in turn: the columns of results.json."""

import gc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from transformers import PreTrainedModel

from ropewalk.conf.artifacts.manifest import read_json
from ropewalk.conf.log import log
from ropewalk.conf.schema import Config
from ropewalk.conf.sources import SYNTHETIC
from ropewalk.data.dataset import DataArtifacts, describe
from ropewalk.eval.measure import suite as suites
from ropewalk.eval.tasks.task import EvalSuite
from ropewalk.train.base import Base
from ropewalk.train.model import build as models
from ropewalk.train.rope.plan import RopePlan
from ropewalk.train.weights import one_reader
from ropewalk.train.zero import inference
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


def precision(config: Config) -> str:
    """As set; else the training's on a GPU, and fp32 on a CPU."""
    unset = config.train.precision if torch.cuda.is_available() else "fp32"
    return config.eval.precision or unset


def dtype(config: Config) -> torch.dtype:
    return torch.bfloat16 if precision(config) == "bf16" else torch.float32


def evaluate(config: Config, base: Base, run_dir: Path) -> dict[str, Any]:
    """The content of `results.json`. Collective: every rank has all of it.

    Raises: DataError when no held-out text is long enough.
    """
    plan = RopePlan.read(run_dir / "rope.json")
    data = DataArtifacts.of(run_dir, Path(config.cache_dir).expanduser())
    suite = suites.build_suite(config, plan, data)
    examples = suites.build_examples(suite)
    partition = dtype(config) if is_partitioned(config, base) else None
    rows = {}
    for column in columns(config, base, plan, run_dir / "train" / "model"):
        rows[column.label] = measure(column, suite, examples, partition)
        log.info(f"eval: {column.label} measured")
        gc.collect()
    return {
        "schema": 1,
        "base_window": plan.base_window,
        "length": suite.length,
        "documents": len({window.origin for window in suite.windows}),
        "windows": len(suite.windows),
        "layout": suite.layout,
        "targets": suite.targets,
        "models": rows,
        "verdicts": suites.verdicts(rows, plan.base_window, suite.length),
        "notes": notes(config, base, read_json(run_dir / "rope.json"), suite.layout),
    }


def is_partitioned(config: Config, base: Base) -> bool:
    """Whether each rank holds a part of the weights: as set, or because a device lacks memory."""
    if config.eval.zero_stage is not None or not dist.is_initialized():
        return config.eval.zero_stage == 3
    numbers = models.parameter_count(base)
    return one_reader.on_reader(lambda: not inference.fits_device(numbers, dtype(config)))


def measure(
    column: Column, suite: EvalSuite, examples: Mapping[str, Any], partition: torch.dtype | None
) -> dict[str, Any]:
    """The rows of one model, by task. `partition`: the dtype of weights in parts; None: whole."""
    if partition is None:
        return suites.measure(column.load(), suite, examples, column.label)
    model = column.load(deepspeed_config=inference.inference_config(partition))
    body = inference.partitioned_body(model)
    models.prove_in_engine(model, column.plan, column.when)
    try:
        return suites.measure(model, suite, examples, column.label, body)
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
            yield Column(label, load, its_plan, when)
    kwargs["trust_remote_code"] = base.trust_remote_code
    load = partial(models.load_trained, trained, plan, **kwargs)
    yield Column("extended", load, plan, "after reload")


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
