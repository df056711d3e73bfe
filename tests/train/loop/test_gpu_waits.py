"""The passes of a step on a GPU, where torch itself raises at a wait for the device."""

import models
import pytest
import torch

from ropewalk.train import attention
from ropewalk.train.loop.micro_batches import to_device
from ropewalk.train.loss_model import LossModel


def passes(module: LossModel, device: torch.device) -> None:
    row, _ = models.packed([30, 18, 16], 64)
    module(**to_device(row, device), total_labels=61).backward()


def small_module(device: torch.device) -> LossModel:
    model = models.tiny_model(hidden_size=64).to(device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    model.to(dtype).set_attn_implementation(attention.register("auto"))
    return LossModel(model).train()


@pytest.mark.gpu
def test_a_forward_and_a_backward_pass_wait_for_nothing() -> None:
    device = torch.device("cuda")
    module = small_module(device)
    passes(module, device)  # kernels are loaded and memory is pinned at the first call
    torch.cuda.set_sync_debug_mode("error")
    try:
        passes(module, device)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_same_passes_run_on_a_cpu() -> None:
    module = small_module(torch.device("cpu"))
    passes(module, torch.device("cpu"))
    assert all(p.grad is not None for p in module.parameters())
