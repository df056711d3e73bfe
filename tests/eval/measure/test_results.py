"""results.json says what measured a column."""

from types import SimpleNamespace
from typing import Any

import pytest

from ropewalk.conf.eval import EvalConfig
from ropewalk.data.dataset import BoundaryTokens
from ropewalk.eval.measure import results


@pytest.mark.parametrize(("backend", "sp_size"), [("transformers", 1), ("vllm", 1), ("vllm", 2)])
def test_a_column_names_the_backend_and_the_ranks_of_a_sequence(
    monkeypatch: pytest.MonkeyPatch, backend: str, sp_size: int
) -> None:
    how = {"precision": "fp32", "kernel": "auto", "device": "cpu"}
    monkeypatch.setattr(results, "how_measured", lambda _: how)
    monkeypatch.setattr(results, "hash_of", lambda _: "hash")
    suite = SimpleNamespace(boundary_tokens=BoundaryTokens(), windows=[], haystack_hash="text")
    plan = SimpleNamespace(method="yarn", json=dict, max_position_embeddings=64)
    column: Any = SimpleNamespace(label="a", model="a", identity="1", plan=plan)
    config = SimpleNamespace(eval=EvalConfig(backend=backend, sp_size=sp_size))
    inputs = SimpleNamespace(suite=suite, samples={}, tokenizer="2")
    evaluation: Any = SimpleNamespace(config=config, inputs={"a": inputs})
    facts = results.column_facts(column, evaluation)
    assert (facts["backend"], facts["sp_size"]) == (backend, sp_size)
    assert facts["haystack"] == "text"
