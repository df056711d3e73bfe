"""Haystacks of validation as a reader of the text solves them, and how often validation runs."""

import json
from typing import Any

import metrics_runs
import models
import numpy as np
import pytest
import torch
from data_fixture import DataFixture
from tokenizers import Tokenizer
from torch.utils.flop_counter import FlopCounterMode

from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.data.retrieval import Haystack, Question
from ropewalk.launch.config.compose import compose
from ropewalk.train.loop import validation_cost
from ropewalk.train.loop.key_value import passes
from ropewalk.train.loop.validation_inputs import haystacks
from ropewalk.train.zero.mesh import Mesh

KV = ("train.validation.tasks=[json_kv]", "train.validation.interval_steps=5")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFixture:
    return DataFixture(tmp_path_factory.mktemp("data"))


def test_a_reader_of_the_text_answers_every_question(data: DataFixture) -> None:
    run = data.run("data.begin=<|pad|>")
    config = data.config(
        "data.begin=<|pad|>",
        *KV,
        "train.validation.length=2000",
        "train.validation.haystacks=3",
    )
    tokenizer = Tokenizer.from_file(str(run.folders.tokenizer / "tokenizer.json"))
    made = haystacks(config, run.folders)
    texts = set()
    for haystack in made:
        assert 1700 < haystack.tokens <= 2000 and len(haystack.questions) == 4
        assert haystack.context[0] == 1 and 1 not in haystack.context[1:]
        context = tokenizer.decode(haystack.context[1:].tolist())
        values = json.loads(context[context.index("{") : context.index("}") + 1])
        depths = [question.depth for question in haystack.questions]
        assert depths == [0.125, 0.375, 0.625, 0.875]
        for question in haystack.questions:
            key = tokenizer.decode(question.ids.tolist()).split('"')[1]
            assert tokenizer.decode(question.answer.tolist()).strip('"\n') == values[key]
        texts.add(context)
    assert len(texts) == 3
    again = haystacks(config, run.folders, count=1)
    assert np.array_equal(again[0].context, made[0].context)


def test_a_length_that_holds_no_object_is_refused_with_the_way_out(data: DataFixture) -> None:
    run = data.run()
    message = "json_kv length is 64; it must hold .* leave json_kv out of train.validation.tasks"
    with pytest.raises(DataError, match=message):
        haystacks(data.config(*KV), run.folders)
    assert haystacks(data.config("train.validation.tasks=[nll_by_position]"), run.folders) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tasks=[passkey]"], r"tasks\[0\] is passkey; it must be one of nll_by_position, json_kv"),
        (["tasks=[]", "interval_steps=null"], "tasks is empty; there must be something to measure"),
        (["haystacks=0"], "haystacks is 0; it must be at least 1"),
        (["positions=0"], "positions is 0; it must be at least 1"),
    ],
)
def test_tasks_without_meaning_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(["recipe=demo", *(f"train.validation.{each}" for each in overrides)])


class Plan(metrics_runs.Plan):
    """Sequences that are one document each."""

    seq_len = 64

    def piece_sources(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        return np.array([64]), np.array([0])

    def num_labels(self, number: int) -> int:
        return 63


def counted_flops(model: Any, documents: list[int], *, trains: bool) -> int:
    """By torch's counter; matrices only, as attention is small here."""
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(trains):
        for length in documents:
            logits = model(torch.zeros(1, length, dtype=torch.long)).logits
            if trains:
                logits.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(("batch", "groups"), [(1, 1), (64, 1), (1, 4)])
def test_validation_has_at_most_4_percent_of_the_flops_by_torchs_counter(
    batch: int, groups: int
) -> None:
    model = models.tiny_model(hidden_size=64, tie_word_embeddings=False)
    size = f"train.global_batch_tokens={batch * 64}"
    config = compose(["recipe=demo", "data.seq_len=64", "train.micro_batch_size=1", size])
    windows = [np.zeros(64, int)] * 6
    question = Question(np.zeros(10, int), np.zeros(2, int), "", "", 0.5)
    haystack = Haystack(np.zeros(40, int), (question, question), 9)
    asked = list(passes([haystack] * 3, is_shared=True))
    mesh = Mesh(0, groups, 1)
    every = validation_cost.interval(model, config, windows, asked, Plan(), mesh)  # type: ignore[arg-type]
    rounds = 6 + 3 if groups == 1 else 8 + 4
    measured = counted_flops(model, [64], trains=False) * rounds
    step = counted_flops(model, [64], trains=True) * batch
    share = measured / (every * step)
    assert share < 0.04 * 1.05
    assert every == 50 or share > 0.04 * 0.9
