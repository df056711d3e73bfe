"""AdamW: torch's fused, DeepSpeed's for offloaded states, or bitsandbytes' with 8-bit moments."""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.train import TrainConfig
from ropewalk.train.zero.config import cpu_adam

ParamGroups = list[dict[str, Any]]


def optimizer_factory(train: TrainConfig) -> Callable[[ParamGroups], torch.optim.Optimizer]:
    """Builds the optimizer of parameter groups. Raises: ConfigError when its package is missing."""
    config = train.optimizer
    optimizer_class, options = _optimizer_class(train)
    options |= {"lr": config.lr, "betas": tuple(config.betas), "eps": config.eps}
    return lambda groups: optimizer_class(groups, weight_decay=config.weight_decay, **options)


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
