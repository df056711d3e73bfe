"""What keeping attention takes, and whether it fits: figures by hand, of Llama 3 8B and 70B."""

from dataclasses import replace
from typing import Any

import models
import psutil
import pytest
import torch
from train_settings import train_config

from ropewalk.train.cost.traffic import ModelSizes, ParallelLayout, model_sizes
from ropewalk.train.memory import attention_budget
from ropewalk.train.memory.attention_budget import decide, kept_bytes, step_bytes
from ropewalk.train.memory.kept_attention import ATTENTION_OPS, EXCHANGE_OPS

GB = 10**9
H100, NODE_SHARE = 80 * 2**30, 256 * 2**30


@pytest.fixture(scope="module")
def llama_8b() -> ModelSizes:
    return model_sizes(models.llama_8b())


def layout(zero_stage: int, tokens: int = 131_072, sp_size: int = 8, dp: int = 1) -> ParallelLayout:
    return ParallelLayout(dp, sp_size, zero_stage, 1, tokens, loss_chunk=1046)


def train(**settings: Any) -> Any:
    return train_config(**{"steps": 1, "optimizer__lr": 1e-3, **settings})


def test_the_bytes_of_8b_at_131072_tokens_on_eight_devices(llama_8b: ModelSizes) -> None:
    kept = kept_bytes(llama_8b, layout(2))
    # layers x tokens of a rank x heads x (128 dimensions in bf16 and a log-sum-exp in fp32)
    assert kept.attention == 32 * 16_384 * 32 * (128 * 2 + 4)  # 4.4 GB
    # queries and attended of 32 heads, keys and values of 8
    assert kept.exchange == 32 * 16_384 * (32 + 32 + 8 + 8) * 128 * 2
    assert kept_bytes(llama_8b, layout(2, sp_size=1)).exchange == 0
    # 8 key/value heads on 16 ranks are repeated to 16
    more = kept_bytes(llama_8b, layout(2, sp_size=16))
    assert more.exchange == 32 * 8_192 * (32 + 32 + 16 + 16) * 128 * 2
    # heads that do not divide: keys are gathered too, and that exchange is made again
    assert kept_bytes(replace(llama_8b, heads=28), layout(2)).exchange == 0


def test_the_states_are_those_of_the_zero_stages(llama_8b: ModelSizes) -> None:
    """8.03e9 parameters: bf16, fp32 sums, 12 bytes of master weight and moments."""

    def states(stage: int, **settings: Any) -> float:
        return step_bytes(llama_8b, layout(stage), train(**settings))["states"] / GB

    own = 8.03 / 8
    assert states(1) == pytest.approx(8.03 * (2 + 4) + own * (4 + 12), rel=1e-3)
    assert states(2) == pytest.approx(8.03 * 2 + own * (4 + 12), rel=1e-3)
    assert states(3) == pytest.approx(own * (2 + 4 + 12), rel=1e-3)
    assert states(3, memory__offload_params=True) == pytest.approx(own * (4 + 12), rel=1e-3)
    assert states(2, optimizer__name="adamw_8bit") == pytest.approx(
        8.03 * 2 + own * (4 + 6), rel=1e-3
    )
    gathered = step_bytes(llama_8b, layout(3), train())["gathered"]
    # two layers of 218 million elements and the head
    assert gathered == pytest.approx((2 * 218.1e6 + 128_256 * 4096) * 2, rel=1e-3)


def test_checkpoints_and_the_loss_by_hand(llama_8b: ModelSizes) -> None:
    sizes = step_bytes(llama_8b, layout(2), train())
    assert sizes["checkpoints"] == 32 * 16_384 * 4096 * 2
    assert sizes["loss"] == 2 * 1046 * 128_256 * 4 + 16_384 * 4096 * 2 + 128_256 * 4096 * 4
    few = step_bytes(llama_8b, layout(2), train(memory__offload_activations=True))
    assert few["checkpoints"] == 2 * 16_384 * 4096 * 2


@pytest.mark.parametrize(
    ("stage", "settings", "device", "ops"),
    [
        (2, {}, H100, ATTENTION_OPS | EXCHANGE_OPS),
        # 60 GB of weights, gradients and states
        (1, {}, H100, frozenset()),
        (1, {"memory__keep_attention": True}, H100, ATTENTION_OPS),
        # room for attention's 4.4 GB, not for 10.7 GB of exchanges beside it
        (2, {}, 64 * 2**30, ATTENTION_OPS),
        # in host memory there is room for all
        (2, {"memory__offload_activations": True}, 56 * 2**30, ATTENTION_OPS | EXCHANGE_OPS),
        # and none on the device, not for the two layers that are there at a time
        (1, {"memory__offload_activations": True}, 64 * 2**30, frozenset()),
    ],
)
def test_what_is_kept_is_what_fits(
    llama_8b: ModelSizes, stage: int, settings: Any, device: int, ops: frozenset[str]
) -> None:
    decision = decide(train(**settings), llama_8b, layout(stage), device, NODE_SHARE)
    assert decision.kept_ops == ops, decision.reason


def test_the_reason_has_the_figures(llama_8b: ModelSizes) -> None:
    def reason(stage: int, tokens: int, sp_size: int) -> str:
        sizes = layout(stage, tokens, sp_size, 8 // sp_size)
        return decide(train(), llama_8b, sizes, H100, NODE_SHARE).reason

    assert reason(1, 131_072, 8).startswith(
        "attention is computed again in the backward pass: its output would take 4.4 GB, and "
    )
    assert reason(3, 8192, 1).startswith("attention's output is kept: 2.2 GB; ")
    assert "attention and its exchange of heads are kept: 15.1 GB; " in reason(2, 131_072, 8)
    assert attention_budget._gb(3_100_000) == "3.1 MB"


def test_ranks_without_a_device_share_the_memory_of_their_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LOCAL_WORLD_SIZE is torchrun's, LOCAL_SIZE of DeepSpeed's launcher."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE"):
        monkeypatch.delenv(name, raising=False)
    total = psutil.virtual_memory().total
    assert attention_budget.device_memory(16) == (total // 16, total // 16)
    monkeypatch.setenv("LOCAL_SIZE", "8")
    assert attention_budget.device_memory(16) == (total // 8, total // 8)
