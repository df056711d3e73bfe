"""Suites of the language-modelling tasks, measured by the engine, and their oracle's losses."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ropewalk.conf.eval import EvalConfig
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import BoundaryTokens, Window
from ropewalk.eval.engine.engine import Engine
from ropewalk.eval.measure import suite as suites
from ropewalk.eval.requests import Result, digest
from ropewalk.eval.tasks.task import ColumnFacts, EvalSuite, Task

DEMO = Path(__file__).parents[2] / "train" / "bases" / "demo"
NO_MARKS = BoundaryTokens()
MODULES = ("json.encoder", "argparse", "string", "bisect", "heapq", "shlex")


def source_text(module: str) -> str:
    """The code of a module of the standard library."""
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).read_text(encoding="utf-8")


def documents(folder: Path, lengths: Sequence[int]) -> list[Window]:
    """Documents of these lengths, the first tokens of a module each."""
    encode = tokenizers.text_encoder(tokenizers.load(str(folder)))
    texts = [encode(source_text(module)) for module in MODULES[: len(lengths)]]
    pairs = zip(MODULES, texts, lengths, strict=False)
    return [Window(name, text[:length], "stdlib") for name, text, length in pairs]


def suite(
    texts: Sequence[Window],
    length: int,
    base_window: int,
    columns: Mapping[str, ColumnFacts] | None = None,
    windows: Sequence[Window] | None = None,
    bos: int | None = None,
    marks: BoundaryTokens = NO_MARKS,
    **settings: Any,
) -> EvalSuite:
    """`windows`: unset, the first `length` tokens of each text that has them."""
    if windows is None:
        long = [text for text in texts if len(text.ids) >= length]
        windows = [Window(text.document, text.ids[:length], text.source) for text in long]
    return EvalSuite(
        config=EvalConfig(**settings),
        base_window=base_window,
        length=length,
        windows=list(windows),
        fillers=[],
        encode=lambda text: np.empty(0, np.int64),
        seed=0,
        boundary_tokens=marks,
        documents=texts,
        bos=bos,
        columns=columns or {},
    )


def rows(task: Task, inputs: EvalSuite, models: Mapping[str, Any]) -> dict[str, Any]:
    """The task's rows by column, measured as the stage does."""
    inputs.config.tasks = [task.name]
    samples = {task.name: task.samples(inputs)}
    results: dict[str, dict[str, Result]] = {}
    for label, model in models.items():
        requests = list(suites.requests_of(samples, label))
        measured = Engine(model, 4096, chunk_tokens=128).measure(requests) if requests else []
        results[label] = {digest(r): m for r, m in zip(requests, measured, strict=True)}
    return {label: part[task.name] for label, part in suites.rows(inputs, samples, results).items()}


def token_losses(model: Any, ids: Sequence[int] | np.ndarray) -> list[float]:
    """The oracle: the loss of each token but the first, from the logits of transformers."""
    tokens = torch.tensor(np.asarray(ids, np.int64))[None]
    with torch.no_grad():
        log_probs = model(input_ids=tokens).logits[0].double().log_softmax(-1)
    return [-float(log_probs[n - 1, tokens[0, n]]) for n in range(1, tokens.shape[1])]
