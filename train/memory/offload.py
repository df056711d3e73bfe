"""ZeRO's stages and what they put into host memory (ZeRO-Offload, arXiv:2101.06840) or on a disk (ZeRO-Infinity, arXiv:2104.07857)."""

from pathlib import Path
from typing import Any

import torch

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.memory import missing_path
from ropewalk.conf.training import TrainConfig


def zero_settings(train: TrainConfig) -> dict[str, Any]:
    """DeepSpeed's `zero_optimization`."""
    zero: dict[str, Any] = {"stage": train.zero_stage}
    if train.offload_optimizer:
        zero["offload_optimizer"] = _where(train)
    if train.offload_params:
        zero["offload_param"] = _where(train)
    if train.zero_hpz_size is not None:
        zero["zero_hpz_partition_size"] = train.zero_hpz_size
    return zero


def _where(train: TrainConfig) -> dict[str, Any]:
    pinned = {"pin_memory": torch.cuda.is_available()}
    if train.offload_path is None:
        return {"device": "cpu", **pinned}
    return {"device": "nvme", "nvme_path": str(Path(train.offload_path).expanduser()), **pinned}


def check_device(train: TrainConfig) -> None:
    """What only the rank's own machine can tell, before anything is built. Raises: ConfigError."""
    if train.precision == "bf16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported(False):
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
