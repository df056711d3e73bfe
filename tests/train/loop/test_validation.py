"""Validation while training equals one process of plain transformers, and changes no step."""

import metrics_runs
import models
import pytest
import ranks
import torch
import torch.nn.functional as F

from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.data.dataset import HeldoutText
from ropewalk.launch.config.compose import compose
from ropewalk.train.loop import validation
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
