""""""

from pathlib import Path
from typing import Any

import torch

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.memory import missing_path
from ropewalk.conf.train import TrainConfig


def deepspeed_config(train: TrainConfig, steps_accumulated: int) -> dict[str, Any]:
    """DeepSpeed's configuration. Clipping is always said: its default is 1.0, not off.

    Gradients are added in fp32, over micro-steps and over ranks: its default for bf16 adds in bf16, where 1 + 255 x 1/512 is 1.
    """
    sums = (
        {"data_types": {"grad_accum_dtype": "fp32"}, "communication_data_type": "fp32"}
        if train.zero_stage
        else {}
    )
    return {
        **sums,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": steps_accumulated,
        "gradient_clipping": train.gradient_clipping,
        "zero_optimization": offload_config(train),
        # the optimizer is ours to choose (train.memory.optimizer): 8-bit ones are none that DeepSpeed has tried
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": train.precision == "bf16"},
        "steps_per_print": 1 << 30,
    }


def offload_config(train: TrainConfig) -> dict[str, Any]:
    """DeepSpeed's `zero_optimization`."""
    zero: dict[str, Any] = {"stage": train.zero_stage}
    if train.offload_optimizer:
        zero["offload_optimizer"] = _target(train)
    if train.offload_params:
        zero["offload_param"] = _target(train)
    if train.zero_hpz_size is not None:
        zero["zero_hpz_partition_size"] = train.zero_hpz_size
    return zero


def _target(train: TrainConfig) -> dict[str, Any]:
    pinned = {"pin_memory": torch.cuda.is_available()}
    if train.offload_path is None:
        return {"device": "cpu", **pinned}
    return {"device": "nvme", "nvme_path": str(Path(train.offload_path).expanduser()), **pinned}


def check_offload_device(train: TrainConfig) -> None:
    """What only the rank's own machine can tell, before anything is built. Raises: ConfigError."""
    if (
        train.precision == "bf16"
        and torch.cuda.is_available()
        and not torch.cuda.is_bf16_supported(False)
    ):
        raise ConfigError(
            f"train.precision is bf16; the device must compute in it, and {torch.cuda.get_device_name()} does not; "
            "set train.precision=fp32"
        )
    if train.offload_path is None:
        return
    if (wrong := missing_path(train.offload_path)) is not None:
        raise ConfigError(wrong)
    if not _asynchronous_io():
        raise ConfigError(
            f"train.offload_path is {train.offload_path}; DeepSpeed reads and writes it by libaio, which is not here; "
            "install libaio's headers (libaio-dev), or unset it to offload to host memory"
        )


def _asynchronous_io() -> bool:
    from deepspeed.ops.op_builder import AsyncIOBuilder

    return bool(AsyncIOBuilder().is_compatible())
