"""A rank's programs of `make test-gpu`, on whatever device the rank has."""

import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from memory_runs import make_config
from models import packed, tiny_config
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM

from ropewalk.conf.data import DataConfig
from ropewalk.conf.hardware_file import of_device
from ropewalk.conf.schema import Config
from ropewalk.train import attention
from ropewalk.train.attention import ulysses
from ropewalk.train.cost.flops import ModelCost, model_cost
from ropewalk.train.cost.layer_traffic import layer_traffic
from ropewalk.train.cost.step_time import Choices, Rates, step_time
from ropewalk.train.cost.traffic import ModelSizes, ParallelLayout, model_sizes
from ropewalk.train.loop.micro_batches import to_device
from ropewalk.train.loop.step import use_deterministic_kernels
from ropewalk.train.memory.attention_budget import kept_bytes, micro_step, step_bytes
from ropewalk.train.zero.engine import Engine, build_engine
from ropewalk.train.zero.mesh import Mesh, device
from ropewalk.train.zero.optimizer_step import gradient_scale

Span = tuple[float, float]
"""Begin and end, in microseconds."""


@dataclass(frozen=True)
class Training:
    """A training of `steps` steps: settings of `train`, the model's config, a row's documents."""

    settings: dict[str, Any]
    shape: dict[str, Any]
    lengths: tuple[int, ...]
    steps: int
    profiled: bool = False
    """Whether the last step runs under torch's profiler."""

    @property
    def tokens(self) -> int:
        return sum(self.lengths)


@dataclass
class Result:
    """Of all ranks the losses, of this rank the rest."""

    losses: list[float]
    step_seconds: float
    """The median of the steps after the first two."""
    peak_bytes: int
    expected_bytes: int
    """The peak by arithmetic, without workspaces of kernels and what the allocator rounds up."""
    flops: int
    expected_seconds: float | None
    """Of a step by arithmetic; None on a device whose peak is not published."""
    exposed_seconds: float | None
    """Communication of the profiled step that no computation hides."""
    communication_seconds: float | None


def train(training: Training) -> Result:
    """Losses, times and memory of a training through the engine, in a process of its own."""
    config, mesh = _config(training), Mesh.of(training.settings.get("sp_size", 1))
    if config.train.deterministic:
        use_deterministic_kernels()
    if torch.cuda.is_available():
        torch.cuda.init()
        torch.cuda.reset_peak_memory_stats()
    model = _model(training, config, mesh)
    cost, sizes, layout = model_cost(model), model_sizes(model), micro_step(model, config, mesh)
    engine = build_engine(model, config, 1, mesh)
    losses, seconds, spans = [], [], ([], [])
    for step in range(training.steps):
        profiled = training.profiled and step == training.steps - 1
        with _profiler() if profiled else nullcontext() as profiler:
            begin = _now()
            losses.append(_step(engine, config, mesh, training, step))
            seconds.append(_now() - begin)
        if profiler is not None:
            spans = device_spans(profiler.events())
    return Result(
        losses,
        statistics.median(seconds[2:] or seconds),
        torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0,
        _peak_bytes(config, sizes, layout, engine),
        cost.training_flops(training.lengths, training.tokens) * mesh.dp_size,
        _expected_seconds(training, model.config, cost, sizes, layout),
        exposed(*spans) / 1e6 if training.profiled else None,
        exposed(spans[0], []) / 1e6 if training.profiled else None,
    )


def _config(training: Training) -> Config:
    config = make_config(**training.settings)
    return replace(config, data=DataConfig(seq_len=training.tokens))


def _model(training: Training, config: Config, mesh: Mesh) -> Any:
    """Built on the device in the dtype of the training; its kernel is the one that is set."""
    dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
    settings = {"max_position_embeddings": training.tokens, **training.shape}
    torch.manual_seed(0)
    with device():
        model = AutoModelForCausalLM.from_config(tiny_config(**settings), dtype=dtype)
    kernel = attention.register(
        config.train.attention.kernel,
        ulysses.kernel_wrapper(model.config, mesh),
        attention.requirements_of(model, dtype),
    )
    model.set_attn_implementation(kernel)
    return model


def _step(engine: Engine, config: Config, mesh: Mesh, training: Training, step: int) -> float:
    """The loss of a step over all ranks; each data-parallel group has a row of its own."""
    row = packed([*training.lengths], training.tokens, seed=step * mesh.dp_size + mesh.dp_rank)[0]
    width = training.tokens // mesh.sp_size
    part = slice(mesh.sp_rank * width, (mesh.sp_rank + 1) * width)
    local = replace(
        row,
        input_ids=row.input_ids[part],
        position_ids=row.position_ids[part],
        labels=row.labels[part],
    )
    labels = int((row.labels >= 0).sum()) * mesh.dp_size
    loss = engine(**to_device(local), total_labels=labels)
    engine.backward(loss * gradient_scale(mesh, 1, config.train.zero_stage))
    engine.step()
    total = loss.detach().clone()
    dist.all_reduce(total)
    return float(total)


def _now() -> float:
    """Seconds, after the device has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def _peak_bytes(config: Config, sizes: ModelSizes, layout: ParallelLayout, engine: Engine) -> int:
    kept = kept_bytes(sizes, layout).attention if engine.module.kept_attention else 0
    return sum(step_bytes(sizes, layout, config.train).values()) + kept


def _expected_seconds(
    training: Training, model: Any, cost: ModelCost, sizes: ModelSizes, layout: ParallelLayout
) -> float | None:
    rates = device_rates(torch.cuda.get_device_name() if torch.cuda.is_available() else "")
    if rates is None:
        return None
    kept = training.settings.get("memory__keep_attention") is not False
    lengths, traffic = training.lengths, layer_traffic(model)
    return step_time(cost, sizes, traffic, layout, rates, Choices(kept), lengths).seconds


def device_rates(name: str) -> Rates | None:
    """The rates of a device with flash-attn 2; None where it has no file."""
    hardware = of_device(name)
    return None if hardware is None else Rates.of(hardware, is_fast=False)


def environment_and_sum(names: list[str], value: float) -> tuple[dict[str, str | None], float]:
    """Variables of this rank's environment, and the sum of every rank's `value`."""
    total = torch.tensor(value, device=device())
    dist.all_reduce(total)
    return {name: os.environ.get(name) for name in names}, float(total)


# -- the profile of a step -------------------------------------------------------------------------


def _profiler() -> Any:
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    return profile(activities=activities)


def device_spans(events: Sequence[Any]) -> tuple[list[Span], list[Span]]:
    """When the device communicated, and when it computed.

    On a CPU: gloo's collectives as torch names them, and torch's operators.
    """
    on_gpu = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]
    communication: list[Span] = []
    computation: list[Span] = []
    for event in on_gpu or events:
        name, span = event.name.lower(), (event.time_range.start, event.time_range.end)
        if name.startswith(("nccl", "gloo:")):
            communication.append(span)
        elif name.startswith("aten::") or (on_gpu and not name.startswith("mem")):
            computation.append(span)
    return communication, computation


def exposed(communication: Sequence[Span], computation: Sequence[Span]) -> float:
    """Microseconds in which something communicates and nothing computes."""
    busy = merged(computation)
    return sum(
        end - begin - sum(max(0.0, min(end, e) - max(begin, b)) for b, e in busy)
        for begin, end in merged(communication)
    )


def merged(spans: Sequence[Span]) -> list[Span]:
    """The same times, in spans that do not overlap."""
    return list(_merge(sorted(spans)))


def _merge(spans: list[Span]) -> Iterator[Span]:
    if not spans:
        return
    begin, end = spans[0]
    for start, stop in spans[1:]:
        if start > end:
            yield begin, end
            begin, end = start, stop
        end = max(end, stop)
    yield begin, end
