"""What the ranks of test_memory.py do: some steps of a tiny model through the engine, under given settings."""

from collections.abc import Iterator
from typing import Any

import deepspeed
import numpy as np
import torch
from deepspeed.utils import safe_get_full_grad
from models import packed, tiny_model

from ropewalk.conf.data import DataConfig
from ropewalk.conf.schema import Config, EvalConfig, ModelConfig, RopeConfig
from ropewalk.conf.training import TrainConfig
from ropewalk.data.dataset import Row
from ropewalk.train import attention, engine
from ropewalk.train.mesh import Mesh
from ropewalk.train.step import gradient_scale, inputs

LENGTH = 48


def config(**train: Any) -> Config:
    """fp32, a constant rate that is large enough for a step to show."""
    settings = {"steps": 4, "lr": 1e-2, "schedule": "constant", "precision": "fp32", "attention": "sdpa", **train}
    return Config(
        name="memory",
        model=ModelConfig(path="tiny"),
        rope=RopeConfig(),
        data=DataConfig(seq_len=LENGTH),
        train=TrainConfig(**settings),  # type: ignore[arg-type]
        eval=EvalConfig(),
    )


def model(**changes: Any) -> Any:
    found = tiny_model(**changes)
    found.set_attn_implementation(attention.register("sdpa"))
    return found


def rows(number: int) -> Row:
    """Another cut of the row into documents each time."""
    lengths = [[20, 28], [48], [5, 40, 3], [16, 16, 16]][number % 4]
    return packed(lengths, LENGTH, seed=number)[0]


def steps(live: Any, settings: Config, count: int, accumulated: int) -> Iterator[tuple[float, dict[str, np.ndarray]]]:
    """The loss of each step over all ranks, and its gradients; every rank and micro-step has rows of its own."""
    mesh = Mesh.of(settings.train.sp_size)
    scale = gradient_scale(mesh, accumulated, settings.train.zero_stage)
    for step in range(count):
        loss, labels = torch.zeros(()), 40 * accumulated * mesh.world_size
        for micro in range(accumulated):
            row = rows((step * accumulated + micro) * mesh.world_size + mesh.rank)
            found = live(**inputs(row), total=labels)
            live.backward(found * scale)
            slopes = gradients(live) if micro == accumulated - 1 else {}
            live.step()
            loss += found.detach()
        torch.distributed.all_reduce(loss)
        yield float(loss), slopes


def gradients(live: Any) -> dict[str, np.ndarray]:
    """Whole tensors as the engine will apply them, before clipping. Adam would hide a wrong scale."""
    whole = {name: safe_get_full_grad(p) for name, p in live.module.named_parameters()}
    return {name: grad.float().numpy().copy() for name, grad in whole.items()}


def weights(live: Any) -> dict[str, np.ndarray]:
    """Whole tensors, whatever the stage."""
    found = {}
    for name, p in live.module.named_parameters():
        with deepspeed.zero.GatheredParameters([p], enabled=hasattr(p, "ds_id")):
            found[name] = p.detach().float().numpy().copy()
    return found


def trained(train: dict[str, Any], accumulated: int = 1, count: int = 2, **changes: Any) -> dict[str, Any]:
    """Losses, the first step's gradients, and the weights after `count` steps."""
    settings = config(**train)
    live = engine.make(model(**changes), settings, accumulated)
    losses, slopes = zip(*steps(live, settings, count, accumulated), strict=True)
    return {"losses": list(losses), "gradients": slopes[0], "weights": weights(live)}


def several(cases: list[dict[str, Any]], accumulated: int = 1) -> list[dict[str, Any]]:
    """Trained under one after the other of the settings, in the same ranks."""
    return [trained(dict(case), accumulated) for case in cases]
