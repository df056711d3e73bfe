"""AdamW: torch's fused, DeepSpeed's for offloaded states, or bitsandbytes' with 8-bit moments."""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.train import TrainConfig
from ropewalk.train.zero.config import cpu_adam

ParamGroups = list[dict[str, Any]]

# bitsandbytes hands a tensor's elements to its kernels as C's 32-bit int; a longer one wraps around
EIGHT_BIT_MAX_ELEMENTS = (1 << 31) - 1


def optimizer_factory(train: TrainConfig) -> Callable[[ParamGroups], torch.optim.Optimizer]:
    """Builds the optimizer of parameter groups. Raises: ConfigError when its package is missing."""
    config = train.optimizer
    optimizer_class, options = _optimizer_class(train)
    options |= {"lr": config.lr, "betas": tuple(config.betas), "eps": config.eps}
    return lambda groups: optimizer_class(groups, weight_decay=config.weight_decay, **options)


def refuse_long_tensor(train: TrainConfig, longest: int, world_size: int) -> None:
    """Raises: ConfigError when bitsandbytes would step only a part of a tensor, or none.

    `longest`: elements of the longest tensor that the optimizer steps on one of `world_size` ranks.
    """
    if train.optimizer.name != "adamw_8bit" or longest <= EIGHT_BIT_MAX_ELEMENTS:
        return
    ranks = -(-longest * world_size // EIGHT_BIT_MAX_ELEMENTS)
    raise ConfigError(
        f"train.optimizer.name is adamw_8bit; it steps tensors of at most "
        f"{EIGHT_BIT_MAX_ELEMENTS:,} elements, and ZeRO {train.zero_stage} on {world_size} rank(s) "
        f"makes one of {longest:,}; set train.zero_stage=3, start at least {ranks} ranks, or set "
        "train.optimizer.name=adamw"
    )


def _optimizer_class(train: TrainConfig) -> tuple[Any, dict[str, Any]]:
    """The class, and its options besides those of every AdamW."""
    if train.optimizer.name == "adamw_8bit":
        return _eight_bit_adamw(), {}
    if train.memory.offload_optimizer and torch.cuda.is_available():
        return cpu_adam(), {"adamw_mode": True}
    return torch.optim.AdamW, {"fused": True}


def _eight_bit_adamw() -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "train.optimizer.name is adamw_8bit; it needs bitsandbytes; "
            "pip install 'ropewalk[bnb]' or train.optimizer.name=adamw"
        )
    import bitsandbytes

    return bitsandbytes.optim.AdamW8bit
