"""Programs of a rank in test_save.py: gather and save a partitioned model."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import deepspeed
import torch
from base_folders import model_of
from host_memory import anonymous_growth
from models import tiny_model
from torch import nn
from transformers.core_model_loading import Chunk, WeightConverter

from ropewalk.train.model import save

FUSED = WeightConverter(
    source_patterns="mlp.gate_up_proj.weight",
    target_patterns=["mlp.gate_proj.weight", "mlp.up_proj.weight"],
    operations=[Chunk(dim=0)],
)
"""Files that hold two parameters in one tensor, as of hrm_text."""


def saved_model(kind: str) -> Any:
    """Of an architecture, by a name of base_folders; "fused": a Llama whose files are FUSED."""
    model = deepcopy(model_of("llama" if kind == "fused" else kind))
    model._weight_conversions = [FUSED] if kind == "fused" else None  # type: ignore[assignment]
    return model


def partition(model: nn.Module) -> None:
    settings = {
        "train_batch_size": torch.distributed.get_world_size(),
        "zero_optimization": {"stage": 3},
    }
    deepspeed.zero.Init(module=model, config_dict_or_path=settings, dtype=torch.float32)


def export_all(parent: str, forms: list[tuple[str, str]], partitioned: bool) -> None:
    """Save each (kind, shard size) below `parent`."""
    for kind in dict.fromkeys(kind for kind, _ in forms):
        model = saved_model(kind)
        if partitioned:
            partition(model)
        for size in [size for other, size in forms if other == kind]:
            save.save_pretrained(model, Path(parent) / kind / size, size)


def growth_of_export(folder: str, changes: dict[str, Any]) -> float:
    """MiB of this rank's memory that saving a partitioned model takes."""
    model = tiny_model(**changes)
    partition(model)
    with anonymous_growth() as growth:
        save.save_pretrained(model, Path(folder))
    return growth.highest


def error_of_empty_weight() -> str:
    try:
        save.gather_full_state_dict(
            [("a.weight", nn.Parameter(torch.zeros(2))), ("b.weight", nn.Parameter(torch.zeros(0)))]
        )
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
