"""The content of results.json, and the samples beside it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.conf.artifacts.manifest import fingerprint
from ropewalk.conf.schema import Config
from ropewalk.conf.sources import SYNTHETIC
from ropewalk.data.dataset import describe
from ropewalk.eval.measure import suite as suites
from ropewalk.eval.measure.columns import Column, precision
from ropewalk.eval.measure.forward import how_measured
from ropewalk.eval.measure.store import ResultStore
from ropewalk.eval.requests import Result, digest
from ropewalk.eval.tasks.task import EvalSuite, Sample
from ropewalk.train.base import Base

RESULTS = "results.json"
SCHEMA = 2


def content(
    config: Config,
    base: Base,
    suite: EvalSuite,
    samples: Mapping[str, Sequence[Sample]],
    columns: Sequence[Column],
    results: Mapping[str, Mapping[str, Result]],
    rope: dict[str, Any],
) -> dict[str, Any]:
    """The content of `results.json`. `rope`: that of `rope.json`."""
    rows = suites.rows(suite, samples, results)
    return {
        "schema": SCHEMA,
        "seed": config.seed,
        "base_window": suite.base_window,
        "length": suite.length,
        "documents": len({window.origin for window in suite.windows}),
        "windows": len(suite.windows),
        "layout": suite.layout,
        "targets": suite.targets,
        "haystack": text_hash(suite.fillers),
        "columns": {
            column.label: column_facts(column, config, suite, samples) for column in columns
        },
        "models": rows,
        "verdicts": suites.verdicts(rows, suite.base_window, suite.length),
        "notes": notes(config, base, rope, suite.layout),
    }


def column_facts(
    column: Column, config: Config, suite: EvalSuite, samples: Mapping[str, Sequence[Sample]]
) -> dict[str, Any]:
    """What a column is, and how it was measured."""
    how = how_measured(config)
    return {
        "model": column.model,
        "identity": column.identity,
        "rope": column.plan.method,
        "rope_hash": column.plan.hash,
        "window": column.plan.max_position_embeddings,
        "dtype": how["precision"],
        "backend": "transformers",
        "kernel": how["kernel"],
        "device": how["device"],
        "batch_tokens": config.eval.batch_tokens,
        "chunk_tokens": config.eval.chunk_tokens,
        "begin": suite.boundary_tokens.begin,
        "end": suite.boundary_tokens.end,
        "prompts": {task: prompt_hash(part) for task, part in samples.items()},
    }


def prompt_hash(samples: Sequence[Sample]) -> str:
    """Of the requests of a task, in their order. Each sample's own stands in samples.jsonl."""
    return fingerprint([digest(sample.request) for sample in samples])[:16]


def text_hash(texts: Sequence[np.ndarray]) -> str:
    """Of the tokens that haystacks are made of."""
    hashes = [hashlib.sha256(np.asarray(text, "<i8").tobytes()).hexdigest() for text in texts]
    return fingerprint(hashes)[:16]


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
        if s.is_asked(label)
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "samples.jsonl").write_text(text, encoding="utf-8")


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
