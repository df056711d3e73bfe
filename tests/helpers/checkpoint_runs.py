"""Runs of the real trainer on a tiny model; run_faults.py disturbs them."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import ranks
import torch
import torch.distributed as dist
from models import documents, tiny_model
from parity_ranks import partition_small_params
from plans import packed, written

from ropewalk.conf.errors import Stopped
from ropewalk.conf.log import log
from ropewalk.conf.schema import Config
from ropewalk.data.dataset import BatchLoader, DataArtifacts
from ropewalk.launch.config.compose import compose
from ropewalk.train import attention
from ropewalk.train.attention import ulysses
from ropewalk.train.checkpoint.checkpointer import Checkpointer, TrainState
from ropewalk.train.launcher.stop import StopSignal
from ropewalk.train.loop.step import use_deterministic_kernels
from ropewalk.train.loop.trainer import Trainer
from ropewalk.train.loop.validation import Validation
from ropewalk.train.loop.watchdog import Watchdog
from ropewalk.train.metrics import StepMetrics
from ropewalk.train.model import save
from ropewalk.train.zero.config import accumulation_steps
from ropewalk.train.zero.engine import Engine, build_engine
from ropewalk.train.zero.flat_params import flat_tensors, optimizer_keys, optimizer_states
from ropewalk.train.zero.mesh import Mesh, device

SEQ_LEN = 64
LENGTHS = [50, 3, 17, 100, 9, 30, 5, 1, 21, 33, 12, 64, 40, 40, 22, 10, 70, 15, 28, 36]


def make_data(path: Path) -> DataArtifacts:
    """Written once, by the test; the ranks read it."""
    return written(path, documents(LENGTHS), packed(LENGTHS, SEQ_LEN), seq_len=SEQ_LEN)


def settings(*overrides: str) -> Config:
    """Six steps of four sequences, with a checkpoint every two steps."""
    sizes = ["data.seq_len=64", "train.global_batch_tokens=256", "train.micro_batch_size=1"]
    steps = ["train.steps=6", "train.checkpoint.interval_steps=2", "train.metrics.wandb=off"]
    rates = ["train.optimizer.lr=1e-2", "train.schedule.warmup_steps=2"]
    return compose(["recipe=demo", *sizes, *steps, *rates, *overrides])


def equal_arrays(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


@dataclass
class RunSpec:
    """The arguments of a rank: a run folder, its settings, and the fault of the run."""

    folder: Path
    config: Config
    data: DataArtifacts
    content: Any = None
    sabotage: Callable[["RunSpec", Engine], None] | None = None
    """A function of run_faults.py, called before the first step."""
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Run:
    engine: Engine
    checkpoints: Checkpointer
    loader: BatchLoader
    mesh: Mesh


def start(spec: RunSpec) -> Run:
    """A rank's engine, checkpointer and loader, as `train.worker` builds them."""
    config, mesh = spec.config, Mesh.of(spec.config.train.sp_size)
    if config.train.deterministic:
        use_deterministic_kernels()
    model = tiny_model().to(device())
    dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
    model.set_attn_implementation(
        attention.register(
            config.train.attention.kernel,
            ulysses.kernel_wrapper(model.config, mesh),
            attention.requirements_of(model, dtype),
        )
    )
    accumulated = accumulation_steps(config, mesh.dp_size)
    with partition_small_params():
        engine = build_engine(model, config, accumulated, mesh)
    loader = BatchLoader(
        spec.data.sequences(),
        mesh,
        seed=config.seed,
        micro_batch_size=1,
        batch_ramp=[(0, accumulated)],
    )
    checkpoints = Checkpointer(
        engine, spec.folder / "checkpoints", config.train, mesh, spec.content
    )
    return Run(engine, checkpoints, loader, mesh)


def train(spec: RunSpec, *, save_final: bool = False) -> dict[str, Any]:
    """Train to the end, watched. Returns losses and batches of all steps, full weights, the first
    step."""
    with Watchdog(spec.folder, ranks.store, spec.config.train.launcher.hang_timeout_s):
        return _train(spec, save_final=save_final)


def _train(spec: RunSpec, *, save_final: bool) -> dict[str, Any]:
    run = start(spec)
    train_state = run.checkpoints.load()
    first_step = train_state.step
    if spec.sabotage is not None:
        spec.sabotage(spec, run.engine)
    build_trainer(run, spec, train_state).train()
    if save_final:
        run.checkpoints.save_final(train_state)
    return {
        "first_step": first_step,
        "failed_saves": run.checkpoints.failed_saves,
        "weights": full_weights(run.engine),
        **read_lines(spec.folder),
    }


def build_trainer(run: Run, spec: RunSpec, train_state: TrainState) -> Trainer:
    engine, config, mesh = run.engine, spec.config, run.mesh
    return Trainer(
        engine,
        config,
        run.loader,
        mesh,
        spec.folder,
        run.checkpoints,
        train_state,
        StepMetrics(engine, config, mesh),
        spec.options.get("validation") or Validation(engine, [], config, mesh),
    )


def train_and_save_final(spec: RunSpec) -> dict[str, Any]:
    return train(spec, save_final=True)


@dataclass
class SlowValidation:
    """After the last of five steps: `windows`, half a second each."""

    windows: int
    windows_measured: int = 0

    def __call__(self, step: int) -> dict[str, Any]:
        if step != 5:
            return {}
        for _ in range(self.windows):
            time.sleep(0.5)
            self.windows_measured += 1
        return {"validation": {"nll": float(self.windows_measured)}}


def read_lines(folder: Path) -> dict[str, Any]:
    """Steps, losses and sequences of the applied steps, and the lines of the others."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [line for line in lines if "event" not in line]
    return {
        "steps": [row["step"] for row in rows],
        "losses": [row["loss"] for row in rows],
        "sequences": [row["sequences"] for row in rows],
        "events": [line for line in lines if "event" in line],
    }


def full_weights(engine: Engine) -> dict[str, np.ndarray]:
    state_dict = save.gather_full_state_dict(engine.module.named_parameters())
    return {name: tensor.float().cpu().numpy() for name, tensor in state_dict.items()}


def load(spec: RunSpec) -> dict[str, Any]:
    """Full weights and optimizer states after a load, and the messages that it logged."""
    run, messages = start(spec), []
    log.info = messages.append  # type: ignore[method-assign,assignment]
    train_state = run.checkpoints.load()
    return {
        "step": train_state.step,
        "messages": messages,
        "weights": full_weights(run.engine),
        "states": full_states(run.engine),
    }


def full_states(engine: Engine) -> dict[str, dict[str, np.ndarray]]:
    """Every fp32 weight and optimizer state, assembled from all ranks' fragments."""
    local = []
    for flat, key in zip(flat_tensors(engine), optimizer_keys(engine), strict=True):
        tensors = {"fp32": flat.tensor, **optimizer_states(engine).get(key, {})}
        for fragment in flat.fragments:
            for name, value in tensors.items():
                if value.dim():
                    value = value.reshape(-1)[fragment.offset : fragment.offset + fragment.numel]
                values = value.detach().cpu().clone().numpy()
                local.append((fragment.name, name, fragment.start, values))
    by_rank: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(by_rank, local)
    parameters = engine.module.named_parameters()
    sizes = {name: getattr(p, "ds_numel", p.numel()) for name, p in parameters}
    states: dict[str, dict[str, np.ndarray]] = {}
    for name, key, begin, values in (fragment for rank in by_rank for fragment in rank):
        tensors = states.setdefault(key, {})
        if values.ndim == 0:
            tensors[name] = values
            continue
        full = tensors.setdefault(name, np.full(sizes[name], np.nan, values.dtype))
        full[begin : begin + len(values)] = values
    return states


def exit_code(spec: RunSpec) -> int:
    try:
        train(spec)
    except Stopped as stop:
        return stop.exit_code
    return 0


def train_until(spec: RunSpec) -> int:
    """Request a stop after `options["until"]` steps of this run; returns the exit code."""
    remaining, original = [spec.options["until"]], StopSignal.__call__

    def patched(self: StopSignal, *flags: float) -> list[bool]:
        remaining[0] -= 1
        self.requested = self.requested or remaining[0] == 0
        return original(self, *flags)

    StopSignal.__call__ = patched  # type: ignore[method-assign]
    return exit_code(spec)


def train_with_stderr(spec: RunSpec) -> dict[str, Any]:
    """`train`, with each rank's stderr in a file."""
    sys.stderr = (spec.folder / f"stderr-{dist.get_rank()}").open("w", buffering=1)
    return train(spec)
