"""Tests of memory that need a CUDA device: `make test-gpu`.

A model without an engine, so that nothing of one measurement is left in the next.
"""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from models import tiny_config
from torch import nn
from transformers import AutoModelForCausalLM

from ropewalk.train import attention, loss
from ropewalk.train.attention import backend, support
from ropewalk.train.cost.traffic import ParallelLayout, model_sizes
from ropewalk.train.memory import activation_checkpointing
from ropewalk.train.memory.attention_budget import kept_bytes
from ropewalk.train.memory.kept_attention import KeptAttention
from ropewalk.train.memory.pinned_memory import ALLOCATOR_SETTING, pinned_bytes

pytestmark = pytest.mark.gpu
TOKENS = 65_536
INPUT_BYTES = TOKENS * 1024 * 2
"""Of one layer."""


def model_on_device(layers: int, kernel: str, kept: KeptAttention | None, offload: bool) -> Any:
    """Heads of 64 dimensions, bf16; only the embeddings are trained, so that gradients are few."""
    config = tiny_config(
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=TOKENS,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).cuda().train()
    model.set_attn_implementation(attention.register(kernel))
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "embed_tokens" in name
    activation_checkpointing.enable(model, offload, kept)
    return model


def step(model: Any, host_ahead: bool = False) -> tuple[torch.Tensor, int]:
    """The gradient of the embeddings, and the peak above what is there before."""
    ids = torch.arange(TOKENS, device="cuda")[None] % 97
    borders = attention.document_borders(
        torch.tensor([0, TOKENS], dtype=torch.int32), torch.device("cuda")
    )
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    if host_ahead:
        torch.cuda._sleep(2_000_000_000)  # about a second, in which the host launches all
    hidden = model.model(input_ids=ids, use_cache=False, **borders).last_hidden_state
    hidden.float().square().mean().backward()
    torch.cuda.synchronize()
    return model.model.embed_tokens.weight.grad, torch.cuda.max_memory_allocated() - before


def available(name: str) -> str:
    if name != "sdpa" and (
        missing := backend.why_unavailable(backend.GPU_KERNELS[name], support.Requirements())
    ):
        pytest.skip(f"{name}: {missing}")
    return name


@pytest.fixture
def deterministic() -> Any:
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", [*backend.GPU_KERNELS, "sdpa"])
def test_kept_attention_changes_no_bit_and_grows_the_peak_by_the_arithmetic(
    name: str, deterministic: None
) -> None:
    layers = 8
    results = {}
    for is_kept in (False, True):
        kept = KeptAttention(is_required=name != "flash4") if is_kept else None
        model = model_on_device(layers, available(name), kept, offload=False)
        results[is_kept] = step(model)
        if kept is not None and not kept.has_effect:
            pytest.skip(f"{name} runs no operation that torch's dispatcher sees")
    assert torch.equal(results[True][0], results[False][0])
    layout = ParallelLayout(1, 1, 1, 1, TOKENS)
    expected = kept_bytes(model_sizes(model), layout).attention * (layers - 1) / layers
    growth = results[True][1] - results[False][1]
    assert growth == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("is_kept", [False, True])
def test_offloading_holds_a_few_layers_however_far_the_host_is_ahead(is_kept: bool) -> None:
    """The peak does not grow with the layers: less than one layer's input for eight more."""
    peaks = []
    for layers in (8, 16):
        kept = KeptAttention() if is_kept else None
        model = model_on_device(layers, "varlen", kept, offload=True)
        step(model)  # what is allocated once
        model.zero_grad()
        peaks.append(step(model, host_ahead=True)[1])
    assert peaks[1] - peaks[0] < INPUT_BYTES, peaks


def test_offloading_changes_no_bit_on_the_device(deterministic: None) -> None:
    for kept in (None, KeptAttention()):
        expected, actual = (
            step(model_on_device(6, "varlen", kept, offload), host_ahead=offload)[0]
            for offload in (False, True)
        )
        assert torch.equal(actual, expected)


def test_products_of_bf16_are_added_in_fp32_without_a_temporary() -> None:
    """Beside float64; a product that is rounded to bf16 before it is added is 1,000 times off."""
    generator = torch.Generator("cuda").manual_seed(0)
    slope, x = (
        torch.randn(1024, n, device="cuda", dtype=torch.bfloat16, generator=generator)
        for n in (32_768, 2048)
    )
    total = torch.randn(32_768, 2048, device="cuda", generator=generator)
    expected = total[:64].double() + slope[:, :64].T.double() @ x.double()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss.add_product(total, slope.T, x)
    # cuBLAS's workspace, not the product's 128 MiB
    assert torch.cuda.max_memory_allocated() - before < 2**26
    assert nn.functional.mse_loss(total[:64].double(), expected).sqrt() < 1e-4


def test_a_pinned_block_is_of_its_own_size() -> None:
    """In a process with the ranks' environment: 160 MiB would take 256."""
    program = (
        "import torch; x = torch.empty(160 << 20, dtype=torch.uint8, pin_memory=True); "
        "print(torch.cuda.host_memory_stats()['allocated_bytes.current'])"
    )
    env = {**os.environ, "PYTORCH_ALLOC_CONF": ALLOCATOR_SETTING}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=env, check=True
    )
    assert int(done.stdout) == pytest.approx(pinned_bytes(160 << 20), rel=0.01)
