"""The gate of short text on real models: the demo base beside its copy and a wrong theta."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ropewalk.conf.eval import EvalConfig
from ropewalk.data.dataset import BoundaryTokens, Window
from ropewalk.eval.engine.engine import Engine
from ropewalk.eval.measure.gates import judge
from ropewalk.eval.requests import Result, Text
from ropewalk.eval.tasks.short_context import ShortContext
from ropewalk.eval.tasks.task import Comparison, Measured
from ropewalk.train.base import BASES

STDLIB = Path(json.__file__).parents[1]


@pytest.fixture(scope="module")
def suite() -> Any:
    """Sixteen files of the standard library as held-out documents."""
    tokenizer = AutoTokenizer.from_pretrained(BASES / "demo")
    files = sorted(STDLIB.glob("*.py"), key=lambda path: path.name[::-1])
    texts = [path.read_text(errors="ignore")[:4000] for path in files]
    ids = [np.array(tokenizer.encode(text)) for text in texts if len(text) == 4000][:16]
    documents = [Window(f"{number}", part) for number, part in enumerate(ids)]
    marks = BoundaryTokens()
    return SimpleNamespace(
        documents=documents, base_window=256, config=EvalConfig(), boundary_tokens=marks, seed=0
    )


def results(suite: Any, theta_factor: float = 1.0) -> list[Result]:
    config = AutoConfig.from_pretrained(BASES / "demo")
    rope = {**config.rope_parameters}
    config.rope_parameters = {**rope, "rope_theta": rope["rope_theta"] * theta_factor}
    model = AutoModelForCausalLM.from_pretrained(BASES / "demo", config=config, dtype=torch.float32)
    requests = [sample.request for sample in ShortContext().samples(suite)]
    assert all(isinstance(request, Text) for request in requests)
    return Engine(model, 2048).measure(requests)


@pytest.fixture(scope="module")
def base(suite: Any) -> list[Result]:
    return results(suite)


def gate(suite: Any, ours: list[Result], base: list[Result], n: int = 16) -> dict[str, Any]:
    samples = ShortContext().samples(suite)[:n]
    rows = ShortContext().rows(Measured(suite, samples, ours[:n], base[:n]))
    (row,) = judge(ShortContext().verdicts(Comparison("b", "a", {"b": rows}, 256, 2048)), [1, 5])
    return row


def test_an_untouched_copy_passes(suite: Any, base: list[Result]) -> None:
    row = gate(suite, results(suite), base)
    assert (row["verdict"], row["value"], row["n"]) == ("pass", 0.0, 16) and row["decides"]


def test_a_model_with_a_wrong_theta_fails(suite: Any, base: list[Result]) -> None:
    row = gate(suite, results(suite, theta_factor=100), base)
    assert row["verdict"] == "fail" and row["low"] > 0.02


def test_too_small_a_sample_is_undecided(suite: Any, base: list[Result]) -> None:
    row = gate(suite, results(suite), base, n=7)
    assert (row["verdict"], row["needed_n"]) == ("undecided", 8)
