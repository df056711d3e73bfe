"""Programs of a rank in test_save.py: gather and save a partitioned model."""

from pathlib import Path
from typing import Any

import deepspeed
import torch
from models import tiny_model
from torch import nn

from ropewalk.train.model import save


def export_partitioned(folder: str, changes: dict[str, Any]) -> bool:
    """Save a partitioned model; whether a parameter was full on this rank."""
    settings = {
        "train_batch_size": torch.distributed.get_world_size(),
        "zero_optimization": {"stage": 3},
    }
    model = tiny_model(**changes)
    deepspeed.zero.Init(module=model, config_dict_or_path=settings, dtype=torch.float32)
    has_full_parameter = any(p.numel() for p in model.parameters())
    save.save_pretrained(model, Path(folder))
    return has_full_parameter


def error_of_empty_weight() -> str:
    try:
        save.gather_full_state_dict(
            [("a.weight", nn.Parameter(torch.zeros(2))), ("b.weight", nn.Parameter(torch.zeros(0)))]
        )
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
