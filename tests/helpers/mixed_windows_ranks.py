"""Models of test_mixed_windows.py, and the program of its ranks: one packed row, sliced."""

import copy
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from models import tiny_model
from transformers import AutoModelForCausalLM

from ropewalk.data.dataset import Row
from ropewalk.train import attention
from ropewalk.train.attention import ulysses
from ropewalk.train.loop.micro_batches import to_device
from ropewalk.train.loss_model import LossModel
from ropewalk.train.rope import mixed_windows
from ropewalk.train.zero.mesh import Mesh

WINDOW, FACTOR = 16, 4


def with_table(parameters):
    """The model as transformers builds it with `rope_parameters`, always with the same weights."""
    model = tiny_model(max_position_embeddings=WINDOW)
    config = copy.deepcopy(model.config)
    config.rope_parameters, config.max_position_embeddings = parameters, WINDOW * FACTOR
    other = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    )
    other.load_state_dict(model.state_dict())
    return other


def unscaled():
    return with_table({"rope_type": "default", "rope_theta": 10000.0})


def scaled():
    yarn = {
        "rope_type": "yarn",
        "factor": float(FACTOR),
        "original_max_position_embeddings": WINDOW,
    }
    return with_table({**yarn, "rope_theta": 10000.0})


def shared(plan: Any, row: Row) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradients of the row, which all ranks share by slices."""
    mesh = Mesh.of(dist.get_world_size())
    model = scaled()
    model.set_attn_implementation(
        attention.register("sdpa", ulysses.kernel_wrapper(model.config, mesh))
    )
    wrapped = LossModel(model)
    wrapped.rope = mixed_windows.install(model, plan, mesh.sp_rank)
    width = len(row.labels) // mesh.sp_size
    cut = slice(mesh.sp_rank * width, (mesh.sp_rank + 1) * width)
    part = Row(row.input_ids[cut], row.labels[cut], row.position_ids[cut], row.cu_seqlens)
    loss = wrapped(**to_device(part), total_labels=1)
    loss.backward()
    total = loss.detach().clone()
    gradients: dict[str, torch.Tensor] = {
        name: p.grad for name, p in model.named_parameters() if p.grad is not None
    }
    for tensor in (total, *gradients.values()):
        dist.all_reduce(tensor)
    return total.item(), {name: gradient.numpy() for name, gradient in gradients.items()}
