"""A batch that grows by steps: every step's sequences and gradient, against one process that reads as many."""

from typing import Any

import batch_ramp_ranks
import numpy as np
import pytest
import ranks
import torch
import torch.nn.functional as F
from feeds import Rows
from models import tiny_model

from ropewalk.conf.errors import ConfigError
from ropewalk.data.loading.loader import global_batch
from ropewalk.launch.config.compose import compose
from ropewalk.train.zero.config import batch_ramp

WORLD, STEPS = 2, 6
SIZES = [
    2,
    6,
    6,
    4,
    8,
    8,
]  # sequences of each step: micro-steps of `batch_ramp_ranks.RAMP` times the ranks


def alone(numbers: list[int]) -> tuple[float, dict[str, torch.Tensor]]:
    """Mean loss and gradient of some sequences, each document through transformers' eager attention."""
    model, rows, losses, count = tiny_model(), Rows(), [], 0
    model.set_attn_implementation("eager")
    for text in (text for number in numbers for text in rows.texts[number]):
        ids = torch.from_numpy(text)[None]
        losses.append(
            F.cross_entropy(
                model(input_ids=ids, use_cache=False).logits[0, :-1], ids[0, 1:], reduction="sum"
            )
        )
        count += len(text) - 1
    loss = torch.stack(losses).sum() / count
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters()}


@pytest.fixture(scope="module")
def result() -> list[list[dict[str, Any]]]:
    return ranks.run(WORLD, batch_ramp_ranks.stages, [0, 1, 2, 3], STEPS)[0]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_each_step_s_loss_and_gradient_are_those_of_one_process(result: Any, stage: int) -> None:
    places = np.cumsum([0, *SIZES])
    order = [ref.number for ref in global_batch(0, places[-1], seed=0, count=8)]
    for step, line in enumerate(result[stage]):
        numbers = order[places[step] : places[step + 1]]
        loss, gradients = alone(numbers)
        assert line["sequences"] == numbers and line["tokens"] == len(numbers) * 48
        assert line["loss"] == pytest.approx(loss, rel=1e-5)
        for name, gradient in gradients.items():
            apart = (
                np.linalg.norm(line["gradients"][name] - gradient.numpy()) / gradient.norm().item()
            )
            assert apart <= 1e-5, (step, name)


def test_a_batch_of_context_only_has_no_loss_and_moves_no_weight() -> None:
    ((line, stayed),) = ranks.run(1, batch_ramp_ranks.context_only)
    assert (line["loss"], line["labels"], line["grad_norm"]) == (0.0, 0, 0.0) and stayed


DEMO = ["recipe=demo", "train.global_batch_tokens=4096", "train.steps=10"]


def test_tokens_of_all_steps_and_micro_steps_of_each_size() -> None:
    config = compose([*DEMO, "train.batch_ramp=[[4, 8192], [9, 16384]]"])
    assert config.tokens == 3 * 4096 + 5 * 8192 + 2 * 16384
    assert batch_ramp(config, 1) == [(0, 1), (3, 2), (8, 4)]
    assert compose(DEMO).tokens == 10 * 4096
    assert compose([*DEMO, "train.batch_ramp=[[11, 8192]]"]).tokens == 10 * 4096


def test_a_ramp_that_does_not_divide_by_the_ranks_is_refused() -> None:
    config = compose([*DEMO, "train.global_batch_tokens=8192", "train.batch_ramp=[[4, 12288]]"])
    with pytest.raises(
        ConfigError,
        match=r"train.batch_ramp\[0\]\[1\] is 12288; it must be a multiple of 4096 tokens x 2 ",
    ):
        batch_ramp(config, 2)


@pytest.mark.parametrize(
    ("ramp", "said"),
    [
        (
            "[[4,8192],[4,4096]]",
            "train.batch_ramp is [[4, 8192], [4, 4096]]; it must be pairs [step, tokens] whose steps",
        ),
        ("[[1,8192]]", "train.batch_ramp is [[1, 8192]]; it must be pairs"),
        ("[[4]]", "train.batch_ramp is [[4]]; it must be pairs"),
        (
            "[[4,5000]]",
            "train.batch_ramp[0][1] is 5000; it must be a multiple of train.micro_batch_size 2 x data.seq_len",
        ),
        ("[[4,0]]", "train.batch_ramp[0][1] is 0; it must be a multiple"),
    ],
)
def test_a_bad_ramp_is_refused(ramp: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose([*DEMO, f"train.batch_ramp={ramp}"])
    assert str(error.value).startswith(said)
