"""One configuration on one kind of hardware: its memory, host, disk, time and communication.

All sizes are in bytes, of one rank unless a name says otherwise.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.hardware_file import Hardware
from ropewalk.conf.phases import title
from ropewalk.conf.schema import Config
from ropewalk.launch.plan import bounds, seconds, traces
from ropewalk.launch.plan.verdict import DOES_NOT_FIT, FITS, verdict, worst
from ropewalk.train import disk_space
from ropewalk.train.base import base_config, locate
from ropewalk.train.cost.flops import ModelCost, mlp_elements, model_cost
from ropewalk.train.cost.step_time import Choices
from ropewalk.train.trace.layers import Subject
from ropewalk.train.trace.plan import StepPlan, StepTrace
from ropewalk.train.trace.step import train_config
from ropewalk.train.zero.config import accumulation_steps
from ropewalk.train.zero.mesh import refuse_unfit

MOST_TRACED = 2
"""Micro-batches of a step: the third is as the second."""
LEFT_OUT = (
    "memory that another stream still reads when the host runs ahead, and kernels' own workspaces "
    "but for attention's",
    "documents that end within a sequence: attention's backward pass pads each of them by 128 "
    "tokens, and native segments grow where their number differs from step to step",
    "other ranks: rank 0 is traced; the time of the slowest decides",
    "reading data, checkpoints, validation, the first step's compilation",
    "a power or clock limit, other jobs on the network",
)
OFFLOAD_NOTE = "the optimizer's time on the host (offload_optimizer): the step takes longer"
COMPILE_NOTE = "torch.compile: fewer intermediate tensors, and less time outside products"


@dataclass(frozen=True)
class Question:
    """What is to be planned."""

    config: Config
    hardware: Hardware
    gpus: int
    is_try: bool = False
    """Of a search: what cannot fit by arithmetic is not traced, and has its verdict alone."""


def forecast(question: Question) -> dict[str, Any]:
    """As `ropewalk plan --json` has it, of one phase. Raises: ConfigError; TraceError."""
    config, hardware, gpus = question.config, question.hardware, question.gpus
    train = config.train
    if train.lora.rank and train.lora.quantize == "nf4":
        raise ConfigError(
            "train.lora.quantize is nf4; packed weights are not traced; plan with "
            "train.lora.quantize=none, whose weights take four times as much"
        )
    refuse_unfit(gpus, train.sp_size, train.memory.zero_hpz_size)
    base = base_config(locate(config.model, Path(config.cache_dir).expanduser()))
    plan = step_plan(question, base)
    subject = Subject(plan, train_config(plan))
    if question.is_try and bounds.is_hopeless(subject, hardware, gpus):
        return {"schema": 1, "verdict": DOES_NOT_FIT}
    trace = traces.of(subject)
    steps = accumulation_steps(config, gpus // train.sp_size)
    memory = _memory(trace, hardware)
    host = _host(subject, trace, question)
    disk = _disk(config, trace.parameters)
    time = _time(subject, question, base, steps)
    verdicts = {"gpu": memory.pop("verdict"), "host": host.pop("verdict")}
    return {
        "schema": 1,
        "phase": title(config).rstrip(": ") or config.name,
        "verdict": worst(list(verdicts.values())),
        "verdicts": verdicts,
        "gpus": gpus,
        "seq_len": config.data.seq_len,
        **memory,
        **host,
        **disk,
        **time,
        "changes": [],
        "kept_ops": trace.kept_ops,
        "curve": trace.curve,
        "left_out": _left_out(config),
    }


def step_plan(question: Question, base: PreTrainedConfig) -> StepPlan:
    """The step of rank 0: documents as long as the sequence, which attend most."""
    config, hardware, gpus = question.config, question.hardware, question.gpus
    on_node = min(gpus, hardware.gpus_per_node)
    steps = accumulation_steps(config, gpus // config.train.sp_size)
    train = asdict(config.train)
    return StepPlan(
        model=base.to_dict(),
        documents=(config.data.seq_len,) * config.train.micro_batch_size,
        train=train,
        world_size=gpus,
        micro_batches=min(steps, MOST_TRACED),
        device_bytes=hardware.memory_bytes,
        host_bytes=int(hardware.host_ram_gib.value * 2**30) // on_node,
    )


def _memory(trace: StepTrace, hardware: Hardware) -> dict[str, Any]:
    usable = hardware.usable_bytes
    return {
        "verdict": verdict(trace.peak_bytes, trace.reserved["expandable"], usable),
        "usable_bytes": usable,
        "peak_bytes": {"allocated": trace.peak_bytes, **trace.reserved},
        "peak_phase": trace.peak_phase,
        "components": dict(sorted(trace.bytes_at_peak.items(), key=lambda x: -x[1])),
    }


def _host(subject: Subject, trace: StepTrace, question: Question) -> dict[str, Any]:
    """Pinned memory of all ranks of a node: offloaded states, weights and activations."""
    parts = {"activations": trace.offloaded_bytes} | bounds.offloaded_states(subject)
    ranks = min(question.gpus, question.hardware.gpus_per_node)
    node = {name: size * ranks for name, size in parts.items() if size}
    total = sum(node.values())
    ram = int(question.hardware.host_ram_gib.value * 2**30)
    return {
        "verdict": verdict(total, total, ram) if total else FITS,
        "host_bytes": total,
        "host_components": node,
        "host_usable_bytes": ram,
    }


def _disk(config: Config, parameters: int) -> dict[str, Any]:
    train = config.train
    count = disk_space.checkpoints_at_once(train)
    parts = {
        f"{count} checkpoint(s)": count * disk_space.checkpoint_bytes(train, parameters),
        "model": disk_space.model_bytes(train, parameters),
        "tokens": 4 * config.tokens,
    }
    return {"disk_bytes": sum(parts.values()), "disk_components": parts}


def _time(
    subject: Subject, question: Question, base: PreTrainedConfig, steps: int
) -> dict[str, Any]:
    config, hardware = question.config, question.hardware
    layout = replace(
        subject.layout, accumulation_steps=steps, keeps_exchange=subject.keeps_exchange
    )
    lengths = subject.plan.documents
    cost: ModelCost = model_cost(subject.full)
    times = seconds.step_range(
        cost, subject.sizes, base, layout, hardware, lengths, _choices(subject)
    )
    low, likely = times["low"].seconds, times["likely"].seconds
    high = likely * seconds.SPREAD
    tokens = sum(lengths) * layout.dp_size * steps
    total = config.train.steps
    return {
        "step_s": {"low": low, "likely": likely, "high": high},
        "step_terms": times["likely"].terms,
        "ceiling": _ceiling(times["low"].terms),
        "tokens_per_step": tokens,
        "tokens_per_s": tokens / likely,
        "mfu": times["likely"].mfu,
        "steps": total,
        "total_s": {"low": low * total, "likely": likely * total, "high": high * total},
        "gpu_hours": {
            name: value * total * question.gpus / 3600
            for name, value in (("low", low), ("likely", likely), ("high", high))
        },
        "communication": seconds.communication(subject.sizes, layout, hardware),
    }


def _choices(subject: Subject) -> Choices:
    tiled = mlp_elements(subject.full) if subject.train.memory.tile_mlp_tokens else 0
    return Choices(attention_kept=bool(subject.kept_ops), tiled_elements=tiled)


def _ceiling(terms: dict[str, float]) -> str:
    """The term that takes most of the least time."""
    return max(terms, key=lambda name: terms[name])


def _left_out(config: Config) -> Sequence[str]:
    memory = config.train.memory
    notes = list(LEFT_OUT)
    if memory.offload_optimizer or memory.offload_params:
        notes.append(OFFLOAD_NOTE)
    if memory.compile:
        notes.append(COMPILE_NOTE)
    return notes
