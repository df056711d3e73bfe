"""Settings of the train stage."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from ropewalk.conf.attention import AttentionConfig
from ropewalk.conf.fields import fingerprint_if_set, not_fingerprinted
from ropewalk.conf.lora import LoraConfig
from ropewalk.conf.loss import LossConfig
from ropewalk.conf.memory import MemoryConfig, missing_path
from ropewalk.conf.metrics import MetricsConfig, ProfilerConfig, ValidationConfig
from ropewalk.conf.optimizer import OptimizerConfig
from ropewalk.conf.stability import StabilityConfig


@dataclass(kw_only=True)
class TrainConfig(OptimizerConfig, MemoryConfig, AttentionConfig, LossConfig):
    steps: int
    """Optimizer steps; 0 exports the rescaled model untrained."""
    lr: float
    global_batch_tokens: int | None = None
    """Tokens of one optimizer step over all ranks and accumulation; unset: `micro_batch_size` sequences."""
    micro_batch_size: int = not_fingerprinted(1)
    """Sequences a rank computes at once; the rest of the batch is accumulated."""
    balance: bool = not_fingerprinted(True)
    """Deal the sequences of a global batch to the ranks by the attention's work, so that none waits long for another. The gradient
    is the same sum in another order."""
    prefetch: int = not_fingerprinted(2)
    """Micro-batches read ahead in the background; 0: each when it is needed."""
    betas: list[float] = field(default_factory=lambda: [0.9, 0.95])
    eps: float = 1e-8
    gradient_clipping: float = 1.0
    """Largest global norm of the gradient; 0: off."""
    lora: LoraConfig = fingerprint_if_set(default_factory=LoraConfig)
    deterministic: bool = not_fingerprinted(False)
    """Only kernels that sum in one order: a resume on a GPU is then the same to the bit too, and slower. A CPU has no others."""
    precision: str = "bf16"
    """bf16 (weights bf16, master weights and optimizer fp32) or fp32."""
    sp_size: int = not_fingerprinted(1)
    """Ranks that share one sequence, neighbours of one machine (Ulysses): a divisor of the attention heads and of the ranks."""
    processes: int | None = not_fingerprinted()
    """Ranks on this machine; unset: one a GPU, or one on a machine without."""
    hostfile: str | None = not_fingerprinted()
    """DeepSpeed hostfile, for several machines."""
    checkpoint_steps: int = not_fingerprinted(100)
    """A checkpoint every so many steps; 0: only when stopped."""
    keep_checkpoints: int = not_fingerprinted(2)
    """The last so many stay."""
    keep_every: int = not_fingerprinted(0)
    """Those of a step that this divides stay too; 0: none."""
    checkpoint_async: bool = not_fingerprinted(True)
    """Training goes on while a checkpoint is written; it waits only for the copy to host memory."""
    requeue: bool = not_fingerprinted(False)
    """In a Slurm job, after a stop: `scontrol requeue` of the job."""
    hang_s: float = not_fingerprinted(1800.0)
    """Seconds without any progress of a rank, after which the run says which one holds it up, and fails; 0: off."""
    faults: StabilityConfig = not_fingerprinted(default_factory=StabilityConfig)
    """What it did is in metrics.jsonl and done.json."""
    wandb: str = not_fingerprinted("auto")
    """auto (online with a key, else offline), online, offline, off."""
    wandb_project: str = not_fingerprinted("ropewalk")
    tensorboard: bool = not_fingerprinted(False)
    """Also as TensorBoard events, in train/tensorboard/."""
    seeing: MetricsConfig = not_fingerprinted(default_factory=MetricsConfig)
    validate: ValidationConfig = not_fingerprinted(default_factory=ValidationConfig)
    profile: ProfilerConfig = not_fingerprinted(default_factory=ProfilerConfig)

    def problems(self) -> Iterator[str]:
        for name, least in (
            ("steps", 0),
            ("checkpoint_steps", 0),
            ("prefetch", 0),
            ("keep_checkpoints", 1),
            ("keep_every", 0),
        ):
            if getattr(self, name) < least:
                yield f"train.{name} is {getattr(self, name)}; it must be at least {least}; raise it"
        yield from self.seeing.problems("train.seeing")
        yield from self.validate.problems("train.validate")
        yield from self.profile.problems("train.profile", self.steps)
        yield from self.faults.problems("train.faults")
        if not (math.isfinite(self.hang_s) and self.hang_s >= 0):
            yield f"train.hang_s is {self.hang_s}; it must be a number of seconds, or 0; e.g. 1800"
        for name in ("micro_batch_size", "sp_size"):
            if getattr(self, name) < 1:
                yield f"train.{name} is {getattr(self, name)}; it must be at least 1; raise it"
        if not (math.isfinite(self.lr) and self.lr > 0):
            yield f"train.lr is {self.lr}; it must be a positive number; e.g. train.lr=2e-5"
        for name in ("gradient_clipping", "eps"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                yield f"train.{name} is {value}; it must be a finite number of at least 0; raise it"
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            yield f"train.betas is {self.betas}; it must be two numbers in [0, 1); e.g. [0.9, 0.95]"
        yield from self.objective_problems()
        yield from self.attending_problems()
        if (
            self.processes is not None
            and self.hostfile is None
            and self.processes % max(self.sp_size, 1)
        ):
            yield (
                f"train.sp_size is {self.sp_size}; it must divide the number of ranks, train.processes {self.processes}; "
                "set a divisor, or start a multiple of it"
            )
        if self.processes is not None and self.processes < 1:
            yield f"train.processes is {self.processes}; it must be at least 1; unset it for one a GPU"
        yield from self.memory_problems()
        # with a hostfile the ranks run elsewhere, and look for themselves
        if (
            self.offload_path is not None
            and self.hostfile is None
            and (wrong := missing_path(self.offload_path))
        ):
            yield wrong
        if self.precision == "bf16" and self.zero_stage == 0:
            yield "train.zero_stage is 0; with bf16 it keeps no fp32 master weights; set train.zero_stage=1 or precision fp32"
        yield from self.optimizing_problems(self.steps)
        yield from self.lora.problems("train.lora", self.zero_stage)
        if self.tile_mlp > 0 and self.lora.rank and self.lora.dropout:
            yield (
                f"train.tile_mlp is {self.tile_mlp}; a tile that is computed again drops others than it dropped, and train.lora.dropout is "
                f"{self.lora.dropout}; set one of them to 0"
            )
        for name, choices in (
            ("precision", ("bf16", "fp32")),
            ("zero_stage", (0, 1, 2, 3)),
            ("wandb", ("auto", "online", "offline", "off")),
        ):
            if getattr(self, name) not in choices:
                yield f"train.{name} is {getattr(self, name)}; it must be one of {', '.join(map(str, choices))}; choose one"
