"""Settings of the train stage."""

from collections.abc import Iterator
from dataclasses import dataclass

from ropewalk.conf.lora import LoraConfig
from ropewalk.conf.memory import MemoryConfig, missing_path
from ropewalk.conf.metrics import MetricsConfig, ProfilerConfig, ValidationConfig
from ropewalk.conf.optimizer import OptimizerConfig, ScheduleConfig
from ropewalk.conf.rules import setting

KERNELS = ("auto", "flash", "flash3", "flash4", "varlen", "sdpa")


@dataclass(kw_only=True)
class LossConfig:
    """What is minimised beside the cross-entropy."""

    z_loss: float = setting(0.0, at_least=0, way_out="e.g. 1e-4", fingerprint="if_set")
    """Coefficient of the mean of logsumexp(logits)^2 over the labels that count, which keeps
    logits from growing (PaLM, arXiv 2204.02311, section 5: 1e-4); 0: none. The logged loss stays
    the cross-entropy."""
    router_aux_loss_coef: float | None = setting(
        None, at_least=0, way_out="unset it, or 0 for none", fingerprint="if_set"
    )
    """Coefficient of the load-balancing loss of a mixture of experts (Switch Transformer, arXiv
    2101.03961), over the tokens of the whole global batch; 0: none. Unset: the base's own, if its
    config has `output_router_logits`."""


@dataclass(kw_only=True)
class AttentionConfig:
    """What computes attention during the training, and over which tokens."""

    kernel: str = setting("auto", one_of=KERNELS, fingerprint=False)
    """auto, flash (flash-attn 2), flash3, flash4, varlen (torch's own) or sdpa (per document,
    CPU too); the choice is logged."""
    s2_group: int | None = setting(None, fingerprint="if_set")
    """S2-Attn (LongLoRA): tokens of a group that attends to itself during the training, half of
    the heads shifted by half a group; the paper takes a quarter of the sequence. Unset: full
    attention. Evaluation and export use full attention."""

    def problems(self, prefix: str) -> Iterator[str]:
        if self.s2_group is not None and (self.s2_group < 2 or self.s2_group % 2):
            yield (
                f"{prefix}s2_group is {self.s2_group}; it is shifted by half of it, so it must be "
                "even and at least 2; e.g. 2048"
            )

    def group_problems(self, prefix: str, seq_len: int) -> Iterator[str]:
        if self.s2_group is not None and self.s2_group >= seq_len:
            yield (
                f"{prefix}s2_group is {self.s2_group}; a group must be shorter than data.seq_len "
                f"{seq_len}; lower it, the paper takes {seq_len // 4}"
            )


@dataclass(kw_only=True)
class CheckpointConfig:
    """When checkpoints are written, and which are kept."""

    interval_steps: int = setting(100, at_least=0)
    """Steps between two checkpoints; 0: only when stopped."""
    keep_last: int = setting(2, at_least=1)
    """How many of the newest checkpoints to keep."""
    keep_every_steps: int = setting(0, at_least=0)
    """Also keep every checkpoint whose step is a multiple of this; 0: none."""
    async_write: bool = True
    """Continue training while a checkpoint is written; training waits only for the copy to host
    memory."""


@dataclass(kw_only=True)
class StabilityConfig:
    """What happens at a nan or a spike. All ranks decide alike, before the optimizer step, from
    the loss and the gradient norm of the global batch."""

    on_nan: str = setting("stop", one_of=("stop", "skip", "rollback"))
    """A loss or gradient that is nan or inf: stop (the step is not taken), skip (continue
    without this batch), or rollback (to the last checkpoint, then again without this batch)."""
    on_spike: str = setting("ignore", one_of=("ignore", "skip", "rollback", "stop"))
    """A spike of the loss or the gradient norm: ignore, skip, rollback or stop."""
    spike_window_steps: int = setting(64, at_least=4)
    """Previous steps that a spike is measured against; with fewer than a quarter of them there
    is no spike."""
    spike_threshold_mads: float = setting(10.0, above=0, way_out="e.g. 10")
    """A value is a spike when it exceeds median + spike_threshold_mads x MAD over the last
    `spike_window_steps`. The MAD is scaled by 1.4826 and is at least 1% of the median."""
    max_skips: int = setting(10, at_least=0)
    """Most batches that may be skipped in one training; the next one stops it."""


@dataclass(kw_only=True)
class LauncherConfig:
    """How the ranks are started and watched."""

    ranks_per_node: int | None = setting(None, at_least=1, way_out="unset it for one a GPU")
    """Ranks on each machine; unset: one a GPU, or one on a machine without."""
    hostfile: str | None = None
    """DeepSpeed hostfile, for several machines."""
    master_port: int | None = setting(
        None,
        at_least=1024,
        at_most=65535,
        way_out="unset it, or a free port of the first host",
    )
    """Port of the first host where all ranks meet. Unset: a free one; with a hostfile, where the
    first host is another machine, one of 29400 to 32499 that the run's name chooses."""
    bind_numa: bool = True
    """Run each rank on the cores beside its GPU, where the system says which they are."""
    start_timeout_s: float = setting(600.0, above=0, at_most=3600, way_out="e.g. 600")
    """Seconds in which every rank must come to the first meeting of all, after which the run names
    those that did not and fails."""
    hang_timeout_s: float = setting(1800.0, at_least=0, way_out="e.g. 1800, or 0 for no timeout")
    """Seconds without progress of a rank, after which the run names the rank and fails; 0: off."""
    first_step_extra_s: float = setting(900.0, at_least=0, way_out="e.g. 900, or 0")
    """Seconds on top of `hang_timeout_s` in the first step after a start: kernels are compiled and
    tuned there, for minutes where their cache is cold."""


@dataclass(kw_only=True)
class TrainConfig:
    """Continued pre-training at the new window."""

    steps: int = setting(at_least=0)
    """Optimizer steps; 0 exports the rescaled model untrained."""
    global_batch_tokens: int | None = None
    """Tokens of one optimizer step over all ranks and accumulation; unset: `micro_batch_size`
    sequences."""
    micro_batch_size: int = setting(1, at_least=1, fingerprint=False)
    """Sequences that a rank computes at once; the rest of the batch is accumulated."""
    batch_ramp: list[list[int]] = setting(factory=list, fingerprint="if_set")
    """[[step, tokens], ...]: the global batch from that step on (the first step is 1); before
    the first of them it is `global_batch_tokens`. The learning rates do not change with it."""
    balance_attention_work: bool = setting(True, fingerprint=False)
    """Deal the sequences of a global batch to the ranks by their attention work, so that no rank
    waits long for another. The gradient is the same sum in another order."""
    mixed_windows: bool = setting(False, fingerprint="if_set")
    """Read documents that fit the base's window with the base's rotary table, and longer ones
    with the plan's (LongRoPE2, arXiv 2502.20082). The exported model has the plan's table; a
    server gets the same quality on short prompts only if it too uses the base's table for them."""
    prefetch: int = setting(2, at_least=0, fingerprint=False)
    """Micro-batches that are read ahead in the background; 0: each when it is needed."""
    deterministic: bool = setting(False, fingerprint=False)
    """Use only kernels that sum in a fixed order, so that a resume on a GPU is bitwise equal
    too; slower. CPU kernels always do."""
    precision: str = setting("bf16", one_of=("bf16", "fp32"))
    """bf16 (weights bf16, master weights and optimizer fp32) or fp32."""
    sp_size: int = setting(1, at_least=1, fingerprint=False)
    """Ranks that share one sequence, neighbours of one machine: a divisor of the ranks. The heads
    are exchanged (Ulysses) over as many of them as divide the attention heads, and the keys of a
    sequence gathered over the rest."""
    zero_stage: int = setting(1, one_of=(0, 1, 2, 3), fingerprint=False)
    """ZeRO: 0 keeps everything on every rank; 1 partitions the optimizer, 2 the gradients too, 3
    the weights too. In bf16 gradients are summed in fp32: 4 bytes a parameter on each rank at 1,
    of its partition at 2 and 3."""
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = setting(factory=ScheduleConfig)
    loss: LossConfig = setting(factory=LossConfig)
    lora: LoraConfig = setting(factory=LoraConfig, fingerprint="if_set")
    attention: AttentionConfig = setting(factory=AttentionConfig)
    memory: MemoryConfig = setting(factory=MemoryConfig, fingerprint=False)
    checkpoint: CheckpointConfig = setting(factory=CheckpointConfig, fingerprint=False)
    stability: StabilityConfig = setting(factory=StabilityConfig, fingerprint=False)
    metrics: MetricsConfig = setting(factory=MetricsConfig, fingerprint=False)
    validation: ValidationConfig = setting(factory=ValidationConfig, fingerprint=False)
    profiler: ProfilerConfig = setting(factory=ProfilerConfig, fingerprint=False)
    launcher: LauncherConfig = setting(factory=LauncherConfig, fingerprint=False)

    def problems(self, prefix: str) -> Iterator[str]:
        yield from self._ramp_problems(prefix)
        yield from self._rank_problems(prefix)
        yield from self._precision_problems(prefix)
        yield from self._optimizer_problems(prefix)
        yield from self._lora_problems(prefix)
        yield from self.schedule.decay_problems(f"{prefix}schedule.", self.steps)
        yield from self.profiler.step_problems(f"{prefix}profiler.", self.steps)
        yield from self.memory.zero_problems(f"{prefix}memory.", self.zero_stage)

    def _ramp_problems(self, prefix: str) -> Iterator[str]:
        pairs = all(len(pair) == 2 for pair in self.batch_ramp)
        steps = [1, *(pair[0] for pair in self.batch_ramp)] if pairs else []
        if not pairs or any(a >= b for a, b in zip(steps, steps[1:], strict=False)):
            yield (
                f"{prefix}batch_ramp is {self.batch_ramp}; it must be pairs [step, tokens] whose "
                "steps rise and lie above 1; e.g. [[100, 2097152], [200, 4194304]]"
            )

    def _rank_problems(self, prefix: str) -> Iterator[str]:
        if self.launcher.hostfile is not None:  # the ranks run elsewhere and check for themselves
            return
        ranks, path = self.launcher.ranks_per_node, self.memory.offload_path
        if ranks is not None and ranks % max(self.sp_size, 1):
            yield (
                f"{prefix}sp_size is {self.sp_size}; it must divide the number of ranks, "
                f"{prefix}launcher.ranks_per_node {ranks}; set a divisor, or start a multiple of "
                "it"
            )
        if path is not None and (problem := missing_path(path)):
            yield problem

    def _precision_problems(self, prefix: str) -> Iterator[str]:
        if self.precision == "bf16" and self.zero_stage == 0:
            yield (
                f"{prefix}zero_stage is 0; with bf16 it keeps no fp32 master weights; set "
                f"{prefix}zero_stage=1 or precision fp32"
            )

    def _optimizer_problems(self, prefix: str) -> Iterator[str]:
        if self.memory.offload_optimizer and self.optimizer.name != "adamw":
            yield (
                f"{prefix}optimizer.name is {self.optimizer.name}; offloaded states are updated "
                f"on the host by DeepSpeed's AdamW; set {prefix}optimizer.name=adamw, or "
                f"{prefix}memory.offload_optimizer=false"
            )

    def _lora_problems(self, prefix: str) -> Iterator[str]:
        if self.lora.rank and self.lora.quantize == "nf4" and self.zero_stage == 3:
            yield (
                f"{prefix}lora.quantize is nf4; 4-bit weights cannot be partitioned by ZeRO 3; "
                f"set {prefix}zero_stage=2"
            )
        if self.memory.tile_mlp_tokens > 0 and self.lora.rank and self.lora.dropout:
            yield (
                f"{prefix}memory.tile_mlp_tokens is {self.memory.tile_mlp_tokens}; each tile is "
                "recomputed in the backward pass, where dropout would drop other elements, and "
                f"{prefix}lora.dropout is {self.lora.dropout}; set one of them to 0"
            )

    def mixed_problems(self, method: str, pose_length: int | None) -> Iterator[str]:
        """`method`: rope.method; `pose_length`: data.pose.target_length."""
        if self.mixed_windows and method == "none":
            yield (
                "train.mixed_windows is True; rope=none has one table for all lengths; choose "
                "rope=yarn, or set it to false"
            )
        if self.mixed_windows and pose_length is not None:
            yield (
                f"train.mixed_windows is True; with data.pose.target_length {pose_length} short "
                "text stands for long text and needs the plan's table; unset one of them"
            )
