"""AdamW by name: torch's fused one, DeepSpeed's for states on the host, bitsandbytes' with moments of 8 bits."""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.train import TrainConfig
from ropewalk.train.zero.config import cpu_adam

Groups = list[dict[str, Any]]


def optimizer_factory(train: TrainConfig) -> Callable[[Groups], torch.optim.Optimizer]:
    """What makes the optimizer of parameter groups. Raises: ConfigError when its package is not installed."""
    kind, more = _class(train)
    adam = {
        "lr": train.optimizer.lr,
        "betas": tuple(train.optimizer.betas),
        "eps": train.optimizer.eps,
        "weight_decay": train.optimizer.weight_decay,
        **more,
    }
    return lambda groups: kind(groups, **adam)


def _class(train: TrainConfig) -> tuple[Any, dict[str, Any]]:
    """The class, and what it takes beside AdamW's own settings."""
    if train.optimizer.name == "adamw_8bit":
        return _eight_bit(), {}
    if train.memory.offload_optimizer and torch.cuda.is_available():
        return cpu_adam(), {"adamw_mode": True}
    return torch.optim.AdamW, {"fused": True}


def _eight_bit() -> Any:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "train.optimizer.name is adamw_8bit; it needs bitsandbytes; pip install 'ropewalk[bnb]' or train.optimizer.name=adamw"
        )
    import bitsandbytes

    return bitsandbytes.optim.AdamW8bit
