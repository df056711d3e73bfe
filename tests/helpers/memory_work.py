"""What the ranks of test_memory.py do: some steps of a tiny model through the engine, under given settings."""

from collections.abc import Iterator
from typing import Any

import deepspeed
import numpy as np
import torch
from deepspeed.utils import safe_get_full_grad
from models import packed, tiny_model
from parity_work import in_pieces
from train_settings import train_config

from ropewalk.conf.data import DataConfig
from ropewalk.conf.eval import EvalConfig
from ropewalk.conf.model import ModelConfig
from ropewalk.conf.schema import Config, RopeConfig
from ropewalk.data.dataset import Row
from ropewalk.train import attention
from ropewalk.train.loop.step import gradient_scale, to_device
from ropewalk.train.model.loss_model import LossModel
from ropewalk.train.zero import engine
from ropewalk.train.zero.device import device
from ropewalk.train.zero.mesh import Mesh

LENGTH = 48


def config(**train: Any) -> Config:
    """fp32, a constant rate that is large enough for a step to show."""
    settings = {
        "steps": 4,
        "optimizer__lr": 1e-2,
        "schedule__kind": "constant",
        "precision": "fp32",
        "attention__kernel": "sdpa",
        **train,
    }
    return Config(
        name="memory",
        model=ModelConfig(path="tiny"),
        rope=RopeConfig(),
        data=DataConfig(seq_len=LENGTH),
        train=train_config(**settings),  # type: ignore[arg-type]
        eval=EvalConfig(),
    )


def model(**changes: Any) -> Any:
    found = tiny_model(**changes)
    found.set_attn_implementation(attention.register("sdpa"))
    return found.to(device())


def rows(number: int, length: int = LENGTH) -> Row:
    """Another cut of the row into documents each time, in 48ths."""
    parts = [[20, 28], [48], [5, 40, 3], [16, 16, 16]][number % 4]
    sizes = [part * length // 48 for part in parts[1:]]
    return packed([length - sum(sizes), *sizes], length, seed=number)[0]


def steps(
    live: Any, settings: Config, count: int, accumulated: int, length: int = LENGTH
) -> Iterator[tuple[float, dict[str, np.ndarray]]]:
    """The loss of each step over all ranks, and its gradients; every rank and micro-step has rows of its own."""
    mesh = Mesh.of(settings.train.sp_size)
    scale = gradient_scale(mesh, accumulated, settings.train.zero_stage)
    for step in range(count):
        loss, labels = torch.zeros((), device=device()), length * accumulated * mesh.world_size
        for micro in range(accumulated):
            row = rows((step * accumulated + micro) * mesh.world_size + mesh.rank, length)
            found = live(**to_device(row), total_labels=labels)
            live.backward(found * scale)
            slopes = gradients(live) if micro == accumulated - 1 else {}
            live.step()
            loss += found.detach()
        torch.distributed.all_reduce(loss)
        yield float(loss), slopes


def step_of(live: Any, step: int) -> float:
    """One step on the row of that number; its loss."""
    found = live(**to_device(rows(step)), total_labels=LENGTH)
    live.backward(found)
    live.step()
    return float(found)


def gradients(live: Any) -> dict[str, np.ndarray]:
    """Whole tensors as the engine will apply them, before clipping. Adam would hide a wrong scale."""
    whole = {name: safe_get_full_grad(p) for name, p in live.module.named_parameters()}
    return {name: grad.float().cpu().numpy().copy() for name, grad in whole.items()}


def weights(live: Any) -> dict[str, np.ndarray]:
    """Whole tensors, whatever the stage."""
    found = {}
    for name, p in live.module.named_parameters():
        with deepspeed.zero.GatheredParameters([p], enabled=hasattr(p, "ds_id")):
            found[name] = p.detach().float().cpu().numpy().copy()
    return found


def trained(
    train: dict[str, Any],
    accumulated: int = 1,
    count: int = 2,
    length: int = LENGTH,
    **changes: Any,
) -> dict[str, Any]:
    """Losses, the first step's gradients, and the weights after `count` steps."""
    settings = config(**train)
    with in_pieces():
        live = engine.build_engine(model(**changes), settings, accumulated)
    losses, slopes = zip(*steps(live, settings, count, accumulated, length), strict=True)
    return {"losses": list(losses), "gradients": slopes[0], "weights": weights(live)}


def one_by_one(count: int) -> dict[str, np.ndarray]:
    """What `trained` in bf16 sums, by torch alone: each row's gradient in bf16, added up in float64."""
    plain = LossModel(model())
    for p in plain.parameters():  # the engine leaves the rotary table in fp32
        p.data = p.data.bfloat16()
    total: dict[str, np.ndarray] = {}
    for number in range(count):
        plain.zero_grad()
        (
            plain(**to_device(rows(number)), total_labels=LENGTH * count) * count
        ).backward()  # a power of two, as the engine is given it
        for name, p in plain.named_parameters():
            if p.grad is not None:
                total[name] = total.get(name, 0.0) + p.grad.double().numpy() / count
    return total


def sums(cases: list[dict[str, Any]], accumulated: int) -> list[dict[str, np.ndarray]]:
    """The gradients of one step under each of the settings."""
    return [
        trained({"precision": "bf16", **case}, accumulated, count=1)["gradients"] for case in cases
    ]


def several(cases: list[dict[str, Any]], accumulated: int = 1) -> list[dict[str, Any]]:
    """Trained under one after the other of the settings, in the same ranks."""
    return [trained(dict(case), accumulated) for case in cases]


def compiled(cases: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """As `several`, and what torch.compile counted: graphs made, and graphs broken off."""
    from torch._dynamo.utils import counters

    counters.clear()
    found = [trained(case, accumulated=2) for case in cases]
    return found, {
        "graphs": counters["stats"]["unique_graphs"],
        "breaks": len(counters["graph_break"]),
    }


def masters(stage: int) -> dict[str, Any]:
    """A run in bf16 at a rate far below what a bf16 weight can follow: weights before, after and as the optimizer has them."""
    from deepspeed.utils import safe_get_full_fp32_param

    from ropewalk.train.rope import proof
    from ropewalk.train.rope.plan import make

    settings = config(precision="bf16", zero_stage=stage, optimizer__lr=1e-6)
    built = model()
    plan = make(settings.rope, built.config, "tiny")
    live = engine.build_engine(built, settings, 1)
    proof.restore(built, plan)
    before = weights(live)
    list(steps(live, settings, 3, 1))
    exact = {
        name: safe_get_full_fp32_param(p).numpy().copy()
        for name, p in live.module.named_parameters()
    }
    rope = {name: module.inv_freq for name, module in proof.rotary_modules(built).items()}
    said = (
        {str(p.dtype) for p in live.module.parameters()},
        {str(table.dtype) for table in rope.values()},
    )
    proof.prove(built, plan, "after training in bf16")
    return {"before": before, "after": weights(live), "masters": exact, "dtypes": said}


def eight_bit(folder: str) -> dict[str, Any]:
    """Losses of four steps without a break, and of the last two after a resume; bytes of a parameter's moments."""
    settings = config(optimizer__name="adamw_8bit", zero_stage=1)
    wide = {
        "hidden_size": 64,
        "intermediate_size": 128,
    }  # a tensor of fewer than 4,096 numbers keeps moments of 32 bits
    live = engine.build_engine(model(**wide), settings, 1)
    losses = []
    for step in range(4):
        losses.append(step_of(live, step))
        if step == 1:
            live.save_checkpoint(folder, tag="two")
    again = engine.build_engine(model(seed=1, **wide), settings, 1)
    again.load_checkpoint(folder, tag="two")
    kinds = {
        str(v.dtype)
        for s in again.optimizer.optimizer.state.values()
        for v in s.values()
        if torch.is_tensor(v)
    }
    return {"losses": losses, "resumed": [step_of(again, step) for step in (2, 3)], "kinds": kinds}
