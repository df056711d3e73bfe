"""DeepSpeed's configuration, and the checks that this machine supports it."""

from pathlib import Path
from typing import Any

import torch

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.memory import missing_path
from ropewalk.conf.schema import Config
from ropewalk.conf.train import TrainConfig


def deepspeed_config(train: TrainConfig, accumulation_steps: int) -> dict[str, Any]:
    """DeepSpeed's configuration. Clipping is always set: its default is 1.0, not off.

    Gradients are summed in fp32, over micro-batches and over ranks. DeepSpeed's default for bf16
    sums in bf16, where 1 + 255 x 1/512 is 1.
    """
    fp32_sums = {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
    return {
        **(fp32_sums if train.zero_stage else {}),
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulation_steps,
        "gradient_clipping": train.optimizer.gradient_clipping,
        "zero_optimization": offload_config(train),
        # optim/optimizer.py chooses the optimizer; DeepSpeed has not tested the 8-bit one
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": train.precision == "bf16"},
        "steps_per_print": 1 << 30,
        # on by default; it waits for the device twice a micro-batch, for a rate that nobody prints
        "timers": {"throughput": {"enabled": False}},
    }


def offload_config(train: TrainConfig) -> dict[str, Any]:
    """The section `zero_optimization`."""
    zero: dict[str, Any] = {"stage": train.zero_stage}
    if train.memory.offload_optimizer:
        zero["offload_optimizer"] = _offload_target(train)
    if train.memory.offload_params:
        zero["offload_param"] = _offload_target(train)
    if train.memory.zero_hpz_size is not None:
        zero["zero_hpz_partition_size"] = train.memory.zero_hpz_size
    return zero


def _offload_target(train: TrainConfig) -> dict[str, Any]:
    target = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    if train.memory.offload_path is not None:
        path = Path(train.memory.offload_path).expanduser()
        target |= {"device": "nvme", "nvme_path": str(path)}
    return target


def cpu_adam() -> type[torch.optim.Optimizer]:
    """DeepSpeed's AdamW for states in host memory; it is compiled at its first use."""
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    return DeepSpeedCPUAdam  # type: ignore[no-any-return]


def check_offload_device(train: TrainConfig) -> None:
    """Raises: ConfigError when this rank's machine cannot compute in bf16 or offload to disk."""
    if train.precision == "bf16" and _lacks_bf16():
        raise ConfigError(
            "train.precision is bf16; the device must compute in it, and "
            f"{torch.cuda.get_device_name()} does not; set train.precision=fp32"
        )
    if train.memory.offload_path is None:
        return
    if (problem := missing_path(train.memory.offload_path)) is not None:
        raise ConfigError(problem)
    if not _has_async_io():
        raise ConfigError(
            f"train.memory.offload_path is {train.memory.offload_path}; DeepSpeed reads and writes "
            "it by libaio, which is not here; install libaio's headers (libaio-dev), or unset it "
            "to offload to host memory"
        )


def _lacks_bf16() -> bool:
    return torch.cuda.is_available() and not torch.cuda.is_bf16_supported(False)


def _has_async_io() -> bool:
    from deepspeed.ops.op_builder import AsyncIOBuilder

    return bool(AsyncIOBuilder().is_compatible())


def accumulation_steps(config: Config, dp_size: int) -> int:
    """Micro-batches of each rank in the first optimizer step. Raises: as `batch_ramp`."""
    return batch_ramp(config, dp_size)[0][1]


def batch_ramp(config: Config, dp_size: int) -> list[tuple[int, int]]:
    """(first step from 0, micro-batches of each rank from that step on) for each batch size.

    Raises: ConfigError when a batch size is no multiple of what the ranks read at once.
    """
    ramp, tokens_at_once = [], config.micro_batch_tokens * dp_size
    for key, first_step, tokens in config.batches():
        if tokens % tokens_at_once:
            nearest = max(1, round(tokens / tokens_at_once)) * tokens_at_once
            raise ConfigError(
                f"{key} is {tokens}; it must be a multiple of {config.micro_batch_tokens} tokens x "
                f"{dp_size} ranks = {tokens_at_once}; try {nearest}"
            )
        ramp.append((first_step, tokens // tokens_at_once))
    return ramp
