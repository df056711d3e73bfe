"""Mixed windows: a packed row equals its documents, each alone in a model with its own table."""

import mixed_windows_ranks
import numpy as np
import pytest
import ranks
import torch
import torch.nn.functional as F
from mixed_windows_ranks import FACTOR, WINDOW, scaled, unscaled
from models import packed, tiny_config

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import DynamicConfig, YarnConfig
from ropewalk.launch.config.compose import compose
from ropewalk.train import attention
from ropewalk.train.loop.micro_batches import to_device
from ropewalk.train.loss_model import LossModel
from ropewalk.train.rope import mixed_windows, proof
from ropewalk.train.rope import plan as rope_plan

LENGTHS = [13, 40, 1, 16, 17, 9]  # 16 fits the window, 17 does not
ROW_TOKENS = sum(LENGTHS)


def plan_of(rope):
    return rope_plan.make(rope, tiny_config(max_position_embeddings=WINDOW), "tiny")


@pytest.fixture
def plan():
    return plan_of(YarnConfig(factor=FACTOR))


def wrapped_model(plan, mixed=True, sp_rank=0):
    model = scaled()
    model.set_attn_implementation(attention.register("sdpa"))
    proof.prove(model, plan, "in the test")
    wrapped = LossModel(model)
    if mixed:
        wrapped.rope = mixed_windows.install(model, plan, sp_rank)
    return wrapped


def alone(pieces):
    """Summed losses and gradients: short documents with the base's table, long ones with YaRN's."""
    models = {True: unscaled(), False: scaled()}
    losses = []
    for piece in pieces:
        ids = torch.from_numpy(piece)[None]
        logits = models[len(piece) <= WINDOW](input_ids=ids).logits[0, :-1]
        losses.append(
            F.cross_entropy(logits, ids[0, 1:], reduction="sum") if len(piece) > 1 else logits.sum()
        )
    total = sum(losses)
    total.backward()
    short, long = (dict(models[kind].named_parameters()) for kind in (True, False))
    return float(total.detach()), {name: short[name].grad + long[name].grad for name in short}


def test_a_packed_row_has_the_loss_and_gradients_of_its_documents_alone(plan):
    row, pieces = packed(LENGTHS, ROW_TOKENS)
    expected, gradients = alone(pieces)
    wrapped = wrapped_model(plan)
    loss = wrapped(**to_device(row), total_labels=1)
    loss.backward()
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    for name, parameter in wrapped.model.named_parameters():
        assert (parameter.grad - gradients[name]).norm() <= 1e-5 * gradients[name].norm(), name


def test_ranks_that_share_a_row_choose_by_the_documents_of_the_full_row(plan):
    """A rank that counted only its part of a long document would give it the base's table."""
    row, pieces = packed(LENGTHS, ROW_TOKENS)
    expected, gradients = alone(pieces)
    loss, shared = ranks.run(2, mixed_windows_ranks.shared, plan, row)[0]
    assert loss == pytest.approx(expected, rel=1e-5)
    for name, gradient in gradients.items():
        assert np.linalg.norm(shared[name] - gradient.numpy()) <= 1e-5 * gradient.norm().item(), (
            name
        )


def test_one_table_for_all_documents_gives_another_loss(plan):
    """So the comparisons above can fail."""
    row, pieces = packed(LENGTHS, ROW_TOKENS)
    loss = float(wrapped_model(plan, mixed=False)(**to_device(row), total_labels=1))
    assert abs(loss / alone(pieces)[0] - 1) > 1e-3


def test_validation_uses_the_plans_table_alone(plan):
    row, _ = packed(LENGTHS, ROW_TOKENS)
    mixed, plan_only = wrapped_model(plan), wrapped_model(plan, mixed=False)
    training = float(mixed(**to_device(row), total_labels=1).detach())
    assert float(mixed.eval()(**to_device(row), total_labels=1).detach()) == float(
        plan_only(**to_device(row), total_labels=1).detach()
    )
    assert float(mixed.train()(**to_device(row), total_labels=1).detach()) == training


def test_each_rank_of_a_sequence_chooses_for_its_slice():
    ends, half = (0, 13, 53, 54, 70, 87, 96), 48
    short_mask = mixed_windows.short_tokens(ends, WINDOW, 0, 96)
    expected = np.repeat([n <= WINDOW for n in LENGTHS], LENGTHS)
    np.testing.assert_array_equal(short_mask, expected)
    slices = [mixed_windows.short_tokens(ends, WINDOW, rank * half, half) for rank in (0, 1)]
    np.testing.assert_array_equal(np.concatenate(slices), expected)


def test_cos_and_sin_of_slices_join_to_those_of_the_full_row(plan):
    row, _ = packed(LENGTHS, ROW_TOKENS)
    ends = tuple(row.cu_seqlens.tolist())

    def tables(sp_rank, count):
        wrapped = wrapped_model(plan, sp_rank=sp_rank)
        wrapped.rope.choose(ends, count, torch.device("cpu"))
        positions = torch.from_numpy(row.position_ids)[
            None, sp_rank * count : (sp_rank + 1) * count
        ]
        return torch.stack(wrapped.model.model.rotary_emb(torch.zeros(1, count, 1), positions))

    assert torch.equal(torch.cat([tables(rank, 48) for rank in (0, 1)], dim=2), tables(0, 96))


def test_the_state_dict_and_the_proof_do_not_see_the_base_table(plan):
    wrapped = wrapped_model(plan)
    assert wrapped.state_dict().keys() == wrapped_model(plan, mixed=False).state_dict().keys()
    assert "1 rotary module(s) hold the plan" in proof.prove(wrapped.model, plan, "before any row")


def test_a_plan_that_switches_by_length_itself_is_refused():
    plan = plan_of(DynamicConfig(factor=FACTOR))
    with pytest.raises(
        ConfigError, match="train.mixed_windows is True; rope=dynamic switches its table"
    ):
        mixed_windows.install(scaled(), plan, 0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["rope=none", "rope.factor=null"], "rope=none has one table for all lengths"),
        (
            ["data.pose.target_length=8192"],
            "with data.pose.target_length 8192 short text stands for long text",
        ),
    ],
)
def test_settings_without_two_tables_are_refused(overrides, message):
    with pytest.raises(ConfigError) as error:
        compose(["recipe=demo", "train.mixed_windows=true", *overrides])
    assert f"train.mixed_windows is True; {message}" in str(error.value)
