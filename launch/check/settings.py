"""The user's settings for the small model: the same parallel form, a small batch.

W ranks   P ranks of a sequence   D = W / P groups   G sequences of the global batch
"""

from dataclasses import replace
from typing import Any

from ropewalk.conf.data import PoseConfig
from ropewalk.conf.memory import ZERO3_SETTINGS, MemoryConfig
from ropewalk.conf.metrics import MetricsConfig, ProfilerConfig, ValidationConfig
from ropewalk.conf.optimizer import ScheduleConfig
from ropewalk.conf.schema import Config
from ropewalk.conf.train import CheckpointConfig, StabilityConfig, TrainConfig

TOKENS_OF_A_RANK = 48
STEPS = 2
TILE = 7
"""Tokens of a tile of the MLP, which do not divide a slice."""


def global_sequences(world_size: int, sp_size: int) -> int:
    """G: at least one a rank, and two micro-batches for each group."""
    return max(world_size, 2 * (world_size // sp_size))


def small_settings(config: Config, world_size: int) -> Config:
    """In fp32, where two ways to one number differ by their roundings only.

    S2-Attn's groups, tiles and windows shrink with the length. The length is not a multiple of
    the ranks that share it. Sizes of ZeRO's buffers are those of the small model.
    """
    train, sp_size = config.train, config.train.sp_size
    seq_len = TOKENS_OF_A_RANK * max(2, sp_size) + 1
    attention = replace(train.attention, kernel="sdpa")
    if attention.s2_group is not None:
        attention = replace(attention, s2_group=min(attention.s2_group, seq_len // 8 * 2))
    return replace(
        config,
        phases=[],
        phase=0,
        data=replace(config.data, seq_len=seq_len, pose=PoseConfig()),
        train=replace(
            _without_reports(train),
            precision="fp32",
            steps=STEPS,
            global_batch_tokens=global_sequences(world_size, sp_size) * seq_len,
            micro_batch_size=1,
            batch_ramp=[],
            attention=attention,
            schedule=ScheduleConfig(kind="constant", warmup_steps=0),
            loss=replace(train.loss, router_aux_loss_coef=0.0),
            lora=replace(train.lora, quantize="none", dropout=0.0),
            memory=_small_memory(train.memory),
        ),
    )


def _small_memory(memory: MemoryConfig) -> MemoryConfig:
    """What is kept and moved as the user sets it, in sizes of the small model."""
    sizes: Any = dict.fromkeys({*ZERO3_SETTINGS, "zero_reduce_bucket_size"} - {"zero_hpz_size"})
    return replace(memory, tile_mlp_tokens=TILE if memory.tile_mlp_tokens else 0, **sizes)


def real_step_settings(config: Config, world_size: int) -> Config:
    """The user's precision, length, kernel and memory settings, without accumulation."""
    train = config.train
    groups = world_size // train.sp_size
    return replace(
        config,
        phases=[],
        phase=0,
        data=replace(config.data, pose=PoseConfig()),
        train=replace(
            _without_reports(train),
            steps=STEPS,
            global_batch_tokens=config.micro_batch_tokens * groups,
            batch_ramp=[],
            schedule=ScheduleConfig(kind="constant", warmup_steps=0),
            lora=replace(train.lora, quantize="none"),
        ),
    )


def _without_reports(train: TrainConfig) -> TrainConfig:
    """Nothing is measured, saved or shown beside what the checks ask for. Patterns of parameters
    may name layers that are left out, and have no effect."""
    return replace(
        train,
        optimizer=replace(train.optimizer, lr_groups=[], trainable=[], freeze=[]),
        checkpoint=CheckpointConfig(interval_steps=0, async_write=train.checkpoint.async_write),
        stability=StabilityConfig(),
        metrics=MetricsConfig(wandb="off", group_norms_every=0),
        validation=ValidationConfig(),
        profiler=ProfilerConfig(),
    )
