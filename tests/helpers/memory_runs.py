"""Steps of a tiny model through the engine under given settings, for the tests of memory."""

from collections.abc import Iterator
from typing import Any

import deepspeed
import numpy as np
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_grad
from models import packed, tiny_model
from parity_ranks import partition_small_params
from train_settings import train_config

from ropewalk.conf.data import DataConfig
from ropewalk.conf.eval import EvalConfig
from ropewalk.conf.model import ModelConfig
from ropewalk.conf.schema import Config, RopeConfig
from ropewalk.data.dataset import Row
from ropewalk.train import attention
from ropewalk.train.loop.micro_batches import to_device
from ropewalk.train.loss_model import LossModel
from ropewalk.train.rope import plan as rope_plan
from ropewalk.train.rope import proof
from ropewalk.train.zero.engine import Engine, build_engine
from ropewalk.train.zero.mesh import Mesh, device
from ropewalk.train.zero.optimizer_step import gradient_scale

LENGTH = 48
DOCUMENTS = [[20, 28], [48], [5, 40, 3], [16, 16, 16]]
"""Lengths of a row's documents, in 48ths of the row; one entry after the other."""


def make_config(**train: Any) -> Config:
    """fp32, and a constant rate that is large enough for a step to show."""
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
        train=train_config(**settings),
        eval=EvalConfig(),
    )


def make_model(**changes: Any) -> Any:
    model = tiny_model(**changes)
    model.set_attn_implementation(attention.register("sdpa"))
    return model.to(device())


def make_row(number: int, length: int = LENGTH) -> Row:
    parts = DOCUMENTS[number % len(DOCUMENTS)]
    sizes = [part * length // 48 for part in parts[1:]]
    return packed([length - sum(sizes), *sizes], length, seed=number)[0]


def run_steps(
    engine: Engine, config: Config, steps: int, accumulated: int, length: int = LENGTH
) -> Iterator[tuple[float, dict[str, np.ndarray]]]:
    """Loss of each step over all ranks, and its gradients; every rank and micro-step has its own
    rows."""
    mesh = Mesh.of(config.train.sp_size)
    scale = gradient_scale(mesh, accumulated, config.train.zero_stage)
    for step in range(steps):
        total, labels = torch.zeros((), device=device()), length * accumulated * mesh.world_size
        gradients: dict[str, np.ndarray] = {}
        for micro_step in range(accumulated):
            number = (step * accumulated + micro_step) * mesh.world_size + mesh.rank
            loss = engine(**to_device(make_row(number, length)), total_labels=labels)
            engine.backward(loss * scale)
            if micro_step == accumulated - 1:
                gradients = full_gradients(engine)
            engine.step()
            total += loss.detach()
        dist.all_reduce(total)
        yield float(total), gradients


def run_step(engine: Engine, step: int) -> float:
    """One step on the row of that number; its loss."""
    loss = engine(**to_device(make_row(step)), total_labels=LENGTH)
    engine.backward(loss)
    engine.step()
    return float(loss)


def full_gradients(engine: Engine) -> dict[str, np.ndarray]:
    """Full gradients as the engine will apply them, before clipping.

    Adam would hide a wrong scale.
    """
    gradients = {name: safe_get_full_grad(p) for name, p in engine.module.named_parameters()}
    return {name: grad.float().cpu().numpy().copy() for name, grad in gradients.items()}


def full_weights(engine: Engine) -> dict[str, np.ndarray]:
    """Full weights, whatever the stage."""
    weights = {}
    for name, p in engine.module.named_parameters():
        with deepspeed.zero.GatheredParameters([p], enabled=hasattr(p, "ds_id")):
            weights[name] = p.detach().float().cpu().numpy().copy()
    return weights


def train(
    settings: dict[str, Any],
    accumulated: int = 1,
    steps: int = 2,
    length: int = LENGTH,
    **changes: Any,
) -> dict[str, Any]:
    """Losses, the first step's gradients, and the final weights.

    `changes`: of the model's config.
    """
    config = make_config(**settings)
    with partition_small_params():
        engine = build_engine(make_model(**changes), config, accumulated)
    losses, gradients = zip(*run_steps(engine, config, steps, accumulated, length), strict=True)
    return {"losses": list(losses), "gradients": gradients[0], "weights": full_weights(engine)}


def gradient_sums(count: int) -> dict[str, np.ndarray]:
    """The sums of `train` in bf16 by torch alone: each row's gradient in bf16, added up in
    float64."""
    module = LossModel(make_model())
    for p in module.parameters():  # the engine leaves the rotary table in fp32
        p.data = p.data.bfloat16()
    sums: dict[str, np.ndarray] = {}
    for number in range(count):
        module.zero_grad()
        loss = module(**to_device(make_row(number)), total_labels=LENGTH * count)
        (loss * count).backward()  # scaled by a power of two, as in the engine
        for name, p in module.named_parameters():
            if p.grad is not None:
                sums[name] = sums.get(name, 0.0) + p.grad.double().numpy() / count
    return sums


def first_gradients(cases: list[dict[str, Any]], accumulated: int) -> list[dict[str, np.ndarray]]:
    """The gradients of one step under each of the settings."""
    return [
        train({"precision": "bf16", **case}, accumulated, steps=1)["gradients"] for case in cases
    ]


def train_each(cases: list[dict[str, Any]], accumulated: int = 1) -> list[dict[str, Any]]:
    """Trained under each of the settings, in the same ranks."""
    return [train(case, accumulated) for case in cases]


def train_compiled(cases: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """As `train_each`, and torch.compile's counts of graphs and graph breaks."""
    from torch._dynamo.utils import counters

    counters.clear()
    results = train_each(cases, accumulated=2)
    counts = {
        "graphs": counters["stats"]["unique_graphs"],
        "breaks": len(counters["graph_break"]),
    }
    return results, counts


def train_slowly(stage: int) -> dict[str, Any]:
    """In bf16, at a rate far below what a bf16 weight can follow: weights before and after, and the
    fp32 masters."""
    config = make_config(precision="bf16", zero_stage=stage, optimizer__lr=1e-6)
    model = make_model()
    plan = rope_plan.make(config.rope, model.config, "tiny")
    engine = build_engine(model, config, 1)
    proof.restore(model, plan)
    weights_before = full_weights(engine)
    list(run_steps(engine, config, 3, 1))
    masters = {
        name: safe_get_full_fp32_param(p).numpy().copy()
        for name, p in engine.module.named_parameters()
    }
    tables = [module.inv_freq for module in proof.rotary_modules(model).values()]
    dtypes = {str(p.dtype) for p in engine.module.parameters()}, {str(t.dtype) for t in tables}
    proof.prove(model, plan, "after training in bf16")
    return {
        "before": weights_before,
        "after": full_weights(engine),
        "masters": masters,
        "dtypes": dtypes,
    }


def resume_eight_bit(folder: str) -> dict[str, Any]:
    """Losses of four steps without a break, and of the last two after a resume; dtypes of the
    states."""
    config = make_config(optimizer__name="adamw_8bit", zero_stage=1)
    # a tensor of fewer than 4,096 elements has moments of 32 bits
    wide = {"hidden_size": 64, "intermediate_size": 128}
    engine = build_engine(make_model(**wide), config, 1)
    losses = []
    for step in range(4):
        losses.append(run_step(engine, step))
        if step == 1:
            engine.save_checkpoint(folder, tag="two")
    resumed = build_engine(make_model(seed=1, **wide), config, 1)
    resumed.load_checkpoint(folder, tag="two")
    values = [v for state in resumed.optimizer.optimizer.state.values() for v in state.values()]
    return {
        "losses": losses,
        "resumed": [run_step(resumed, step) for step in (2, 3)],
        "dtypes": {str(v.dtype) for v in values if torch.is_tensor(v)},
    }
