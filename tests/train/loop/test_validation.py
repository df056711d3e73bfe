"""Validation in training: what one process of plain transformers finds, and no trace of it in the training."""

import metrics_runs
import models
import pytest
import ranks
import torch
import torch.nn.functional as F

from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.launch.config.compose import compose
from ropewalk.train.loop import validation
from ropewalk.train.zero.mesh import Mesh


def eager() -> torch.Tensor:
    """(positions, losses) of each window alone under transformers' eager attention, (tokens, 2)."""
    model = models.tiny_model(**metrics_runs.LARGE, attn_implementation="eager")
    found = []
    with torch.no_grad():
        for ids in metrics_runs.windows():
            x = torch.from_numpy(ids)[None]
            nll = F.cross_entropy(model(x).logits[0, :-1], x[0, 1:], reduction="none").double()
            found.append(torch.stack([torch.arange(len(nll)).double(), nll], 1))
    return torch.cat(found)


@pytest.mark.parametrize(
    ("stage", "world", "sp"), [(1, 1, 1), (2, 2, 1), (1, 2, 2), (3, 2, 1), (3, 2, 2)]
)
def test_it_is_what_one_process_finds(stage: int, world: int, sp: int) -> None:
    found, wanted = ranks.run(world, metrics_runs.validate, stage, sp), eager()
    for rank in found:
        assert rank["tokens"] == len(wanted) and rank["windows"] == len(metrics_runs.WINDOWS)
        assert rank["nll"] == pytest.approx(float(wanted[:, 1].mean()), rel=1e-5)
        for row in rank["nll_by_position"]:
            inside = (wanted[:, 0] >= row["from"]) & (wanted[:, 0] < row["to"])
            assert row["tokens"] == int(inside.sum())
            assert row["nll"] == pytest.approx(float(wanted[inside, 1].mean()), rel=1e-5)


@pytest.mark.parametrize(("stage", "world", "sp"), [(0, 1, 1), (1, 2, 2), (3, 2, 1)])
def test_training_does_not_notice(stage: int, world: int, sp: int) -> None:
    without, beside = (
        ranks.run(world, metrics_runs.train_with_validation, stage, sp, every) for every in (0, 2)
    )
    assert without == beside


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
    ("word", "said"),
    [
        ("interval_steps=-1", "train.validation.interval_steps is -1; it must be at least 0"),
        ("windows=0", "train.validation.windows is 0; it must be at least 1"),
        (
            "length=1",
            "train.validation.length is 1; it must be at least 2; unset it for data.seq_len",
        ),
    ],
)
def test_settings_that_mean_nothing_are_refused(word: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose(["recipe=demo", f"train.validation.{word}"])


class NoText:
    """Data whose sources have no held-out document."""

    def text_stores(self, _: object) -> list[object]:
        return []


def test_held_out_text_that_is_too_short_is_said_before_the_first_step() -> None:
    config = compose(
        ["recipe=demo", "train.validation.interval_steps=5", "train.validation.length=4000"]
    )
    with pytest.raises(
        DataError, match="train.validation.length is 4000; no held-out document has so many tokens"
    ):
        validation.build_validation(None, config, NoText(), Mesh())  # type: ignore[arg-type]
    quiet = validation.build_validation(None, compose(["recipe=demo"]), NoText(), Mesh())  # type: ignore[arg-type]
    assert quiet(5) == {}
