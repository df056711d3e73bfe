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


def evaluation_of(judged: str | None, same_tokens: bool, length: int) -> Any:
    suite = SimpleNamespace(length=length, base_window=1024)
    base, other = SimpleNamespace(suite=suite), SimpleNamespace(suite=suite)
    inputs = {"base": base, "extended": base if same_tokens else other}
    return SimpleNamespace(judged=judged, reference="base", inputs=inputs)


@pytest.mark.parametrize(
    ("judged", "same_tokens", "length", "reason"),
    [
        (None, True, 4096, "there is no column beside base that could be judged"),
        ("extended", False, 4096, "extended has another tokenizer than base"),
        ("extended", True, 1025, "eval.tasks has no task with a gate; add context_gain, "),
    ],
)
def test_without_gates_the_results_say_why(
    monkeypatch: pytest.MonkeyPatch,
    judged: str | None,
    same_tokens: bool,
    length: int,
    reason: str,
) -> None:
    monkeypatch.setattr(results.suites, "gates", lambda *_: [])
    evaluation = evaluation_of(judged, same_tokens, length)
    content = results.judgement(evaluation, {"base": {}, "extended": {}})
    assert content["gates"] == [] and len(content["answers"]) == 5
    assert content["not_judged"].startswith(reason)
    for answer in content["answers"]:
        assert answer["answer"] == "not measured"
        assert answer["reason"].startswith("eval.tasks needs " if length == 1025 else reason)


def test_inside_the_window_only_its_cost_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = {"question": 5, "verdict": "pass", "name": "a", "text": "b", "n": 9}
    monkeypatch.setattr(results.suites, "gates", lambda *_: [gate])
    content = results.judgement(evaluation_of("extended", True, 1024), {"base": {}, "extended": {}})
    reason = "eval.length is 1,024, no longer than the window of base, 1,024: nothing past it is"
    *past, inside = content["answers"]
    assert all(answer["reason"].startswith(reason) for answer in past)
    assert (inside["answer"], inside["reason"], content["not_judged"]) == ("yes", None, None)
