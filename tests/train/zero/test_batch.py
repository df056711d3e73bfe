"""A batch that grows: each step's sequences and gradient equal those of one process."""

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
# sequences of each step: micro-batches of `batch_ramp_ranks.RAMP` times the ranks
SIZES = [2, 6, 6, 4, 8, 8]


def loss_and_gradients(numbers: list[int]) -> tuple[float, dict[str, torch.Tensor]]:
    """Mean loss and gradients of some sequences, each document alone under eager attention."""
    model, rows, losses, count = tiny_model(), Rows(), [], 0
    model.set_attn_implementation("eager")
    for text in (text for number in numbers for text in rows.texts[number]):
        ids = torch.from_numpy(text)[None]
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        losses.append(F.cross_entropy(logits, ids[0, 1:], reduction="sum"))
        count += len(text) - 1
    loss = torch.stack(losses).sum() / count
    loss.backward()
    return loss.item(), {name: p.grad for name, p in model.named_parameters()}


@pytest.fixture(scope="module")
def result() -> list[list[dict[str, Any]]]:
    return ranks.run(WORLD, batch_ramp_ranks.stages, [0, 1, 2, 3], STEPS)[0]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_loss_and_gradient_of_every_step_equal_one_process(result: Any, stage: int) -> None:
    starts = np.cumsum([0, *SIZES])
    order = [ref.number for ref in global_batch(0, starts[-1], seed=0, count=8)]
    for step, line in enumerate(result[stage]):
        numbers = order[starts[step] : starts[step + 1]]
        loss, gradients = loss_and_gradients(numbers)
        assert line["sequences"] == numbers and line["tokens"] == len(numbers) * 48
        assert line["loss"] == pytest.approx(loss, rel=1e-5)
        for name, gradient in gradients.items():
            distance = np.linalg.norm(line["gradients"][name] - gradient.numpy())
            assert distance <= 1e-5 * gradient.norm().item(), (step, name)


def test_a_batch_without_labels_has_no_loss_and_changes_no_weight() -> None:
    ((line, unchanged),) = ranks.run(1, batch_ramp_ranks.context_only)
    assert (line["loss"], line["labels"], line["grad_norm"]) == (0.0, 0, 0.0) and unchanged


DEMO = ["recipe=demo", "train.global_batch_tokens=4096", "train.steps=10"]


def test_a_ramp_gives_the_tokens_of_all_steps_and_the_micro_batches_of_each_size() -> None:
    config = compose([*DEMO, "train.batch_ramp=[[4, 8192], [9, 16384]]"])
    assert config.tokens == 3 * 4096 + 5 * 8192 + 2 * 16384
    assert batch_ramp(config, 1) == [(0, 1), (3, 2), (8, 4)]
    assert compose(DEMO).tokens == 10 * 4096
    assert compose([*DEMO, "train.batch_ramp=[[11, 8192]]"]).tokens == 10 * 4096


def test_a_ramp_that_does_not_divide_by_the_ranks_is_refused() -> None:
    config = compose([*DEMO, "train.global_batch_tokens=8192", "train.batch_ramp=[[4, 12288]]"])
    message = r"train.batch_ramp\[0\]\[1\] is 12288; it must be a multiple of 4096 tokens x 2 "
    with pytest.raises(ConfigError, match=message):
        batch_ramp(config, 2)


@pytest.mark.parametrize(
    ("ramp", "message"),
    [
        (
            "[[4,8192],[4,4096]]",
            "train.batch_ramp is [[4, 8192], [4, 4096]]; it must be pairs [step, tokens] whose",
        ),
        ("[[1,8192]]", "train.batch_ramp is [[1, 8192]]; it must be pairs"),
        ("[[4]]", "train.batch_ramp is [[4]]; it must be pairs"),
        (
            "[[4,5000]]",
            "train.batch_ramp[0][1] is 5000; it must be a multiple of train.micro_batch_size 2 x "
            "data.seq_len",
        ),
        ("[[4,0]]", "train.batch_ramp[0][1] is 0; it must be a multiple"),
    ],
)
def test_a_bad_ramp_is_refused(ramp: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose([*DEMO, f"train.batch_ramp={ramp}"])
    assert str(error.value).startswith(message)
