"""Programs of a rank in the LoRA tests: build, train, resume and save adapters."""

from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_grad
from feeds import accept_step, config, feed
from models import tiny_model
from parity_ranks import partition_small_params

from ropewalk.conf.lora import LoraConfig
from ropewalk.train import attention
from ropewalk.train.adapters import attach, quantize, save
from ropewalk.train.attention import ulysses
from ropewalk.train.base import Base, base_config
from ropewalk.train.checkpoint.checkpointer import Checkpointer, TrainState
from ropewalk.train.loop.micro_batches import to_device
from ropewalk.train.loop.step import gradient_scale, train_step
from ropewalk.train.metrics import StepMetrics
from ropewalk.train.model import build
from ropewalk.train.model.save import gather_full_state_dict, save_pretrained
from ropewalk.train.optim import param_groups
from ropewalk.train.rope import plan as rope_plan
from ropewalk.train.rope import proof
from ropewalk.train.zero import engine
from ropewalk.train.zero.mesh import Mesh, device

SEED = 5


def build_adapted(
    lora: dict[str, Any], changes: dict[str, Any], partition_dtype: torch.dtype | None = None
) -> Any:
    """A tiny model with an adapter whose B matrices are not zero, so that no gradient is zero.

    `partition_dtype`: dtype in which ZeRO 3 partitions the base first; None: not partitioned.
    """
    model = tiny_model(**changes)
    if partition_dtype is not None:
        settings = {"train_batch_size": dist.get_world_size(), "zero_optimization": {"stage": 3}}
        model.to(partition_dtype)
        deepspeed.zero.Init(module=model, config_dict_or_path=settings, dtype=partition_dtype)
    attach.attach(model, LoraConfig(**lora), SEED)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


def engine_of(
    train: dict[str, Any], lora: dict[str, Any], changes: dict[str, Any], accumulated: int
) -> Any:
    dtype = torch.bfloat16 if train.get("precision") == "bf16" else torch.float32
    settings = config(lora=LoraConfig(**lora), **train)
    built = build_adapted(
        lora,
        changes,
        dtype if train.get("zero_stage") == 3 and train.get("sp_size", 1) == 1 else None,
    )
    mesh = Mesh.of(settings.train.sp_size)
    built.set_attn_implementation(
        attention.register("sdpa", ulysses.kernel_wrapper(built.config, mesh))
    )
    with partition_small_params():
        return engine.build_engine(built, settings, accumulated, mesh), settings


def gradients(
    train: dict[str, Any], lora: dict[str, Any], changes: dict[str, Any], accumulated: int
) -> dict[str, Any]:
    """Full gradients of the first step, by trained parameter."""
    live, settings = engine_of(train, lora, changes, accumulated)
    mesh = Mesh.of(settings.train.sp_size)
    reads = feed(mesh, accumulated)
    rows, scale = (
        reads.micro_batches([0]),
        gradient_scale(mesh, accumulated, settings.train.zero_stage),
    )
    for _ in range(accumulated):
        live.backward(live(**to_device(next(rows)), total_labels=reads.num_labels(0)) * scale)
        if live.is_gradient_accumulation_boundary():
            break
        live.step()
    named = [(n, p) for n, p in live.module.model.named_parameters() if p.requires_grad]
    return {name: np.array(safe_get_full_grad(p)) for name, p in named}


def train_and_save(
    folder: str, steps: int, train: dict[str, Any], lora: dict[str, Any], changes: dict[str, Any]
) -> Any:
    """Train and save model and adapter; the model's logits on the ids 0 to 39."""
    live, settings = engine_of(train, lora, changes, 1)
    live_model, mesh = live.module.model, Mesh.of(1)
    reads = feed(mesh, 1)
    rows, seen = reads.micro_batches(range(steps)), StepMetrics(live, settings, mesh)
    for step in range(steps):
        train_step(live, settings, reads, rows, step, mesh, seen, accept_step)
    plan = rope_plan.make(settings.rope, tiny_model(**changes).config, "tiny")
    proof.restore(live_model, plan)
    message = proof.prove(live_model, plan, "after training")
    save_pretrained(live.module.model, Path(folder) / "model")
    save.save_adapter(live_model, plan, "tiny", Path(folder) / "adapter")
    logits = _logits(live_model)
    dist.barrier()
    return {
        "logits": logits,
        "local_parameters": sum(p.numel() for p in live_model.parameters()),
        "proof": message,
    }


def resumed(
    folder: str, train: dict[str, Any], next_train: dict[str, Any], lora: dict[str, Any]
) -> dict[str, Any]:
    """Losses and weights of four steps, and of a resume after two, which may be on another mesh.

    `next_train`: the settings of the resumed run. `saved`: names in the checkpoint.
    """
    uninterrupted = _some(None, train, lora, 0, 4)
    _some(Path(folder), train, lora, 0, 2)
    second = _some(Path(folder), next_train, lora, 2, 4)
    saved = torch.load(
        next(Path(folder).glob("step-00000002/*model_states.pt")), weights_only=False
    )
    return {"uninterrupted": uninterrupted, "resumed": second, "saved": sorted(saved["module"])}


def _some(
    folder: Path | None, train: dict[str, Any], lora: dict[str, Any], first: int, last: int
) -> dict[str, Any]:
    """Steps `first` to `last`. Step 0 on saves a checkpoint in `folder`; a later start loads it."""
    live, settings = engine_of({**train, "checkpoint__async_write": False}, lora, {}, 1)
    mesh = Mesh.of(settings.train.sp_size)
    reads, seen = feed(mesh, 1), StepMetrics(live, settings, mesh)
    if folder is not None:
        checkpointer = Checkpointer(live, folder, settings.train, mesh)
        assert checkpointer.load().step == first
    rows = reads.micro_batches(range(first, last))
    losses = [
        train_step(live, settings, reads, rows, step, mesh, seen, accept_step)["loss"]
        for step in range(first, last)
    ]
    if folder is not None and not first:
        checkpointer.save(TrainState(last))
        checkpointer.finish()
    weights = {
        n: t.numpy()
        for n, t in gather_full_state_dict(live.module.model.named_parameters()).items()
    }
    live.destroy()
    return {"losses": losses, "weights": weights}


def initial_adapter(lora: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    model = tiny_model()
    attach.attach(model, LoraConfig(**lora), seed)
    return {n: p.detach().numpy() for n, p in model.named_parameters() if "lora_" in n}


def adapter_error(train: dict[str, Any], lora: dict[str, Any]) -> str:
    try:
        attach.fully_trained_modules(engine_of(train, lora, {}, 1)[0].module.model)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def train_four_bits(
    folder: str, base: str, train: dict[str, Any], lora: dict[str, Any]
) -> dict[str, Any]:
    """Train an adapter of a 4-bit base for two steps; logits before and after."""
    settings = config(lora=LoraConfig(**lora), **train)
    mesh, plan = Mesh.of(1), rope_plan.make(settings.rope, base_config(Base(base)), "tiny")
    load_kwargs = quantize.load_kwargs(settings.train.lora, torch.float32, device())
    built = build.build(
        Base(base), plan, dtype=torch.float32, attention_kernel="sdpa", load_kwargs=load_kwargs
    )
    attach.attach(built, settings.train.lora, SEED)
    message = param_groups.describe_trainable(built)
    live, reads = engine.build_engine(built, settings, 1, mesh), feed(mesh, 1)
    base_logits = _logits(built)
    rows, seen = reads.micro_batches(range(2)), StepMetrics(live, settings, mesh)
    for step in range(2):
        train_step(live, settings, reads, rows, step, mesh, seen, accept_step)
    save_pretrained(live.module.model, Path(folder) / "model")
    save.save_adapter(built, plan, "tiny", Path(folder) / "adapter")
    return {"before": base_logits, "after": _logits(built), "trainable": message}


def _logits(model: Any) -> np.ndarray:
    model.eval()
    with torch.no_grad():
        logits: np.ndarray = (
            model(input_ids=torch.arange(40)[None], use_cache=False).logits[0].float().numpy()
        )
    model.train()
    return logits
