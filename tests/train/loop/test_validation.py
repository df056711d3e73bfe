"""Validation while training equals one process of plain transformers, and changes no step."""

from typing import Any

import metrics_runs
import models
import numpy as np
import pytest
import ranks
import torch
import torch.nn.functional as F
from scipy.stats import binomtest

from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.data.dataset import HeldoutText
from ropewalk.data.retrieval import Haystack, Question
from ropewalk.launch.config.compose import compose
from ropewalk.train.loop import key_value, validation
from ropewalk.train.zero.mesh import Mesh


def eager_losses() -> torch.Tensor:
    """Positions and losses (tokens, 2) of each window alone under eager attention."""
    model = models.tiny_model(**metrics_runs.LARGE, attn_implementation="eager")
    rows = []
    with torch.no_grad():
        for ids in metrics_runs.windows():
            x = torch.from_numpy(ids)[None]
            nll = F.cross_entropy(model(x).logits[0, :-1], x[0, 1:], reduction="none").double()
            rows.append(torch.stack([torch.arange(len(nll)).double(), nll], 1))
    return torch.cat(rows)


@pytest.mark.parametrize(
    ("stage", "world", "sp"), [(1, 1, 1), (2, 2, 1), (1, 2, 2), (3, 2, 1), (3, 2, 2)]
)
def test_validation_equals_one_process(stage: int, world: int, sp: int) -> None:
    positions, losses = eager_losses().unbind(1)
    for result in ranks.run(world, metrics_runs.validate, stage, sp):
        assert result["tokens"] == len(losses) and result["windows"] == len(metrics_runs.WINDOWS)
        assert result["nll"] == pytest.approx(float(losses.mean()), rel=1e-5)
        for row in result["nll_by_position"]:
            inside = (positions >= row["from"]) & (positions < row["to"])
            assert row["tokens"] == int(inside.sum())
            assert row["nll"] == pytest.approx(float(losses[inside].mean()), rel=1e-5)


def greedy(model: Any, ids: np.ndarray, count: int) -> np.ndarray:
    """(count,): what transformers decodes after `ids`."""
    output = model.generate(torch.from_numpy(ids)[None], max_new_tokens=count, do_sample=False)
    return output[0, len(ids) :].numpy()


def decoded_haystacks(model: Any) -> tuple[list[Haystack], list[bool]]:
    """Three haystacks of 2, 3 and 1 questions; for some of them the answer is what the model
    decodes, for some it is so up to the last token or after the first."""
    expected, haystacks = [], []
    for seed, (length, kinds) in enumerate([(70, "rl"), (81, "frr"), (64, "r")]):
        context, *texts = models.documents([length, *(5 + n for n in range(len(kinds)))], seed)
        questions = []
        for text, kind in zip(texts, kinds, strict=True):
            answer = greedy(model, np.concatenate([context, text]), 3)
            if kind != "r":
                wrong = {"l": 2, "f": 0}[kind]
                answer[wrong] = (answer[wrong] + 1) % models.VOCAB
            questions.append(Question(text, answer, "", "", depth=len(questions) / 2))
            expected.append(kind == "r")
        haystacks.append(Haystack(context, tuple(questions), pairs=9))
    return haystacks, expected


def answer_loss(model: Any, haystacks: list[Haystack]) -> float:
    """Mean loss of the answers' tokens, each question alone under eager attention."""
    losses = []
    for haystack in haystacks:
        for question in haystack.questions:
            text = np.concatenate([haystack.context, question.ids, question.answer])
            x, count = torch.from_numpy(text)[None], len(question.answer)
            with torch.no_grad():
                logits = model(x).logits[0, -1 - count : -1]
            losses.append(F.cross_entropy(logits, x[0, -count:], reduction="none"))
    return float(torch.cat(losses).mean())


@pytest.mark.parametrize(
    ("stage", "world", "sp", "passes"),
    [(1, 1, 1, 3), (0, 2, 1, 2), (1, 2, 2, 3), (2, 2, 1, 2), (3, 2, 1, 2), (3, 2, 2, 3)],
)
def test_questions_are_answered_as_transformers_decodes_each_alone(
    stage: int, world: int, sp: int, passes: int
) -> None:
    sizes = metrics_runs.LARGE
    _retrieval_equals_transformers(stage, world, sp, passes, sizes)


def test_ranks_that_do_not_divide_the_heads_ask_each_question_in_a_pass_of_its_own() -> None:
    sizes = {**metrics_runs.THREE_HEADS, "num_attention_heads": 3, "hidden_size": 24}
    _retrieval_equals_transformers(1, 2, 2, 6, sizes)


def _retrieval_equals_transformers(
    stage: int, world: int, sp: int, passes: int, sizes: dict[str, Any]
) -> None:
    model = models.tiny_model(**sizes, attn_implementation="eager")
    haystacks, expected = decoded_haystacks(model)
    for result in ranks.run(world, metrics_runs.retrieve, stage, sp, haystacks, sizes):
        found = result["json_kv"]
        assert result["passes"] == passes
        assert found["n"] == 6 and found["haystacks"] == 3
        assert found["accuracy"] == pytest.approx(sum(expected) / 6)
        by_depth = [(row["depth"], row["n"], row["accuracy"]) for row in found["by_depth"]]
        assert by_depth == [(0.0, 3, 2 / 3), (0.5, 2, 0.5), (1.0, 1, 1.0)]
        assert found["length"] == 81 + 7 + 3
        assert found["answer_nll"] == pytest.approx(answer_loss(model, haystacks), rel=1e-5)


def test_the_interval_of_all_questions_is_that_of_as_many_haystacks() -> None:
    depths = [0.0, 1.0, 0.0, 1.0]
    questions = [Question(np.zeros(1), np.zeros(1), "", "", depth) for depth in depths]
    row = key_value.shares(questions, [True, False, True, False], haystacks=2)
    wide = binomtest(1, 2).proportion_ci(method="wilson")
    assert (row["low"], row["high"]) == pytest.approx((wide.low, wide.high), abs=1e-6)
    assert [(part["n"], part["accuracy"]) for part in row["by_depth"]] == [(2, 1.0), (2, 0.0)]


@pytest.mark.parametrize(("stage", "world", "sp"), [(0, 1, 1), (1, 2, 2), (3, 2, 1)])
def test_training_is_the_same_with_and_without_validation(stage: int, world: int, sp: int) -> None:
    without, with_validation = (
        ranks.run(world, metrics_runs.train_with_validation, stage, sp, interval)
        for interval in (0, 2)
    )
    assert without == with_validation


def test_the_lowest_finite_loss_is_the_best() -> None:
    lines = [
        {"step": step, **({"validation": {"nll": nll}} if nll else {})}
        for step, nll in enumerate([None, 3.0, None, 2.0, float("nan"), 2.5], 1)
    ]
    assert validation.summary(lines) == {
        "validation": {"best": {"step": 4, "nll": 2.0}, "last": {"step": 6, "nll": 2.5}}
    }
    assert validation.summary(lines[:1]) == {}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("interval_steps=-1", "train.validation.interval_steps is -1; it must be at least 0"),
        ("windows=0", "train.validation.windows is 0; it must be at least 1"),
        (
            "length=1",
            "train.validation.length is 1; it must be at least 2; unset it for data.seq_len",
        ),
    ],
)
def test_settings_without_meaning_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose(["recipe=demo", f"train.validation.{override}"])


class NoText:
    """Data whose sources have no held-out document."""

    def heldout_text(self, _: object) -> HeldoutText:
        return HeldoutText({})


def test_held_out_text_that_is_too_short_is_refused_before_the_first_step() -> None:
    overrides = ["train.validation.interval_steps=5", "train.validation.length=4000"]
    config = compose(["recipe=demo", *overrides])
    message = "train.validation.length is 4000; no held-out document has that many tokens"
    with pytest.raises(DataError, match=message):
        validation.build_validation(None, config, NoText(), Mesh())  # type: ignore[arg-type]
    disabled = validation.build_validation(None, compose(["recipe=demo"]), NoText(), Mesh())  # type: ignore[arg-type]
    assert disabled(5) == {}
