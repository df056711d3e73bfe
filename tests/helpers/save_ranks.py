"""Programs of a rank in test_save.py: gather and save a partitioned model."""

from pathlib import Path
from typing import Any

import deepspeed
import torch
from models import tiny_model
from torch import nn

from ropewalk.train.model import save


def export_in_pieces(folder: str, changes: dict[str, Any]) -> bool:
    """Whether the parameters really lay in pieces."""
    settings = {
        "train_batch_size": torch.distributed.get_world_size(),
        "zero_optimization": {"stage": 3},
    }
    model = tiny_model(**changes)
    deepspeed.zero.Init(module=model, config_dict_or_path=settings, dtype=torch.float32)
    there = any(p.numel() for p in model.parameters())
    save.save_pretrained(model, Path(folder))
    return there


def empty() -> str:
    try:
        save.gather_full_state_dict(
            [("a.weight", nn.Parameter(torch.zeros(2))), ("b.weight", nn.Parameter(torch.zeros(0)))]
        )
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
