"""Tasks of lm-eval through our engine, beside the same tasks by its own HFLM on the same model."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import models
import numpy as np
import pytest

from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.conf.eval import EvalConfig
from ropewalk.conf.eval_short_context import LmEvalConfig, ShortContextConfig
from ropewalk.data.dataset import BoundaryTokens
from ropewalk.eval import preflight
from ropewalk.eval.engine.engine import Engine
from ropewalk.eval.measure.gates import judge
from ropewalk.eval.requests import digest
from ropewalk.eval.tasks import lm_eval_tasks
from ropewalk.eval.tasks.short_context import ShortContext
from ropewalk.eval.tasks.task import Comparison, Measured

lm_eval = pytest.importorskip("lm_eval")
WORDS = ("rope", "yarn", "strand", "walk", "key", "pass", "long", "laid")
YAML = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{train: {file}, test: {file}}}}}
test_split: test
fewshot_split: train
output_type: {output}
doc_to_text: "{{{{question}}}}"
doc_to_target: {target}
{more}
"""
CHOICES = "doc_to_choice: choices\nmetric_list: [{metric: acc}, {metric: acc_norm}]"
GENERATION = "generation_kwargs: {until: [x]}\nmetric_list: [{metric: exact_match}]"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: Any) -> Path:
    """Two tasks: questions with four choices, and one that decodes."""
    folder = tmp_path_factory.mktemp("tasks")
    rng = np.random.Generator(np.random.PCG64(0))
    rows = []
    for _ in range(40):
        choices = [str(word) for word in rng.choice(WORDS, 4, replace=False)]
        question = " ".join(rng.choice(WORDS, 5)) + ":"
        rows.append({"question": question, "choices": choices, "answer": int(rng.integers(4))})
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    forms = {"words": ("multiple_choice", "answer", CHOICES)}
    forms["decoded"] = ("generate_until", "question", GENERATION)
    for name, (output, target, more) in forms.items():
        text = YAML.format(name=name, file=file, output=output, target=target, more=more)
        (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.fixture(autouse=True)
def offline(monkeypatch: Any, tmp_path_factory: Any) -> Iterator[None]:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path_factory.getbasetemp() / "datasets"))
    yield


def suite(tokenizer: Any, folder: Path, *names: str, window: int = 64, shots: int = 1) -> Any:
    own = LmEvalConfig(tasks=list(names), include_path=str(folder), num_fewshot=shots)
    made: dict[str, Any] = {}

    def once(name: str, make: Any) -> Any:
        if name not in made:
            made[name] = make()
        return made[name]

    return SimpleNamespace(
        config=EvalConfig(short_context=ShortContextConfig(lm_eval=own)),
        encode=lambda text: np.array(tokenizer.encode(text, add_special_tokens=False)),
        boundary_tokens=BoundaryTokens(),
        bos=None,
        base_window=window,
        documents=[],
        seed=0,
        once=once,
    )


def model(tokenizer: Any, seed: int = 0) -> Any:
    return models.tiny_model(seed, vocab_size=len(tokenizer), attn_implementation="sdpa")


def measured(own: Any, ours: Any, base: Any = None) -> Measured:
    samples = ShortContext().samples(own)
    requests = [sample.request for sample in samples]
    of_base = None if base is None else Engine(base, 512).measure(requests)
    return Measured(own, samples, Engine(ours, 512).measure(requests), of_base)


def by_hflm(tokenizer: Any, ours: Any, folder: Path, window: int) -> list[dict[str, Any]]:
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    wrapped = HFLM(pretrained=ours, tokenizer=tokenizer, max_length=window, batch_size=4)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    kwargs: dict[str, Any] = {"bootstrap_iters": 0, "num_fewshot": 1, "task_manager": manager}
    output = lm_eval.simple_evaluate(model=wrapped, tasks=["words"], **kwargs)
    return list(output["samples"]["words"])


def test_prompts_scores_and_likelihoods_are_those_of_hflm(tokenizer: Any, tasks: Path) -> None:
    ours, own = model(tokenizer), suite(tokenizer, tasks, "words")
    result = measured(own, ours)
    by_digest = {
        digest(sample.request): replies
        for sample, replies in zip(result.samples, result.results, strict=True)
    }
    found = lm_eval_tasks.items(own, "words", by_digest)
    expected = by_hflm(tokenizer, ours, tasks, 64)
    assert len(found) == len(expected) == 40
    keys = {f"words {row['doc_id']} {row['doc_hash']}": row["acc_norm"] for row in expected}
    assert {key: item.score for key, item in found.items()} == keys
    assert {item.metric for item in found.values()} == {"acc_norm"}
    theirs = sorted(float(ll) for row in expected for ((ll, _),) in row["resps"])
    nll = sorted(-reply.nll for replies in result.results for reply in replies)
    np.testing.assert_allclose(nll, theirs, atol=1e-4)


def test_the_row_pairs_items_with_the_base(tokenizer: Any, tasks: Path) -> None:
    """The counts of McNemar's table by a loop over what HFLM scores for both models."""
    ours, base = model(tokenizer, 1), model(tokenizer)
    own = suite(tokenizer, tasks, "words")
    loss, row = ShortContext().rows(measured(own, ours, base))
    assert loss["reason"]
    theirs = [[r["acc_norm"] for r in by_hflm(tokenizer, m, tasks, 64)] for m in (ours, base)]
    lost = sum(b > a for a, b in zip(*theirs, strict=True))
    gained = sum(a > b for a, b in zip(*theirs, strict=True))
    assert (row["lost"], row["gained"], row["n"]) == (lost, gained, 40) and lost and gained
    assert row["difference"] == pytest.approx(100 * (gained - lost) / 40)
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    (gate,) = judge(ShortContext().verdicts(Comparison("b", "a", {"b": [loss, row]}, 64, 128)), [5])
    assert (gate["verdict"], gate["tolerance"], gate["unit"]) == ("undecided", -1.0, "question")
    assert gate["needed_n"] > 40 or gate["needed_n"] is None


def test_a_question_that_the_window_does_not_hold_is_refused(tokenizer: Any, tasks: Path) -> None:
    with pytest.raises(DataError, match=r"words; a question of it has \d+ tokens.*window of 8"):
        lm_eval_tasks.samples(suite(tokenizer, tasks, "words", window=8))


def test_a_task_that_decodes_is_refused(tokenizer: Any, tasks: Path) -> None:
    with pytest.raises(ConfigError, match="decoded; it is a task of generate_until"):
        lm_eval_tasks.samples(suite(tokenizer, tasks, "decoded"))


def test_a_changed_file_of_the_tasks_is_another_measurement(tasks: Path, tmp_path: Path) -> None:
    """By name and content of every file below the folder, and not by its place."""

    def found(folder: Path) -> dict[str, str]:
        return lm_eval_tasks.identity(LmEvalConfig(include_path=str(folder)))

    shutil.copytree(tasks, tmp_path / "copy")
    assert found(tmp_path / "copy") == found(tasks)
    assert set(found(tasks)) == {"rows.jsonl", "words.yaml", "decoded.yaml"}
    for name in ("rows.jsonl", "words.yaml"):
        before = found(tmp_path / "copy")
        (tmp_path / "copy" / name).open("a").write("\n")
        after = found(tmp_path / "copy")
        assert {key for key in after if after[key] != before[key]} == {name}


def test_a_folder_that_is_not_there_is_told_before_the_data(tmp_path: Path) -> None:
    settings = EvalConfig(tasks=["short_context"])
    settings.short_context.lm_eval.include_path = str(tmp_path / "none")
    config: Any = SimpleNamespace(eval=settings)
    plan: Any = SimpleNamespace(base_window=64, max_position_embeddings=128)
    (line,) = preflight.length_problems(config, plan)
    key = "eval.short_context.lm_eval.include_path"
    assert line.startswith(f"{key} is {tmp_path / 'none'}; it must be a folder")


def test_without_tasks_nothing_of_lm_eval_is_asked(tokenizer: Any, tasks: Path) -> None:
    assert lm_eval_tasks.samples(suite(tokenizer, tasks)) == []
