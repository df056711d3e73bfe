"""Small base folders in every form that transformers writes, and ways to damage their weights."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from rope_models import HANDLED, config_of
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ropewalk.train.weights import check

ARCHITECTURES = {
    name: HANDLED[name]
    for name in HANDLED
    if name
    not in ("llama 3.1", "llama, own head_dim", "qwen2.5, scaled by yarn", "phi 3, longrope")
} | {
    "ministral 3": ("Ministral3", {"head_dim": 16, "sliding_window": None}),
    "seed oss": ("SeedOss", {"head_dim": 16}),
}
Tensors = dict[str, torch.Tensor]


@cache
def model_of(architecture: str) -> PreTrainedModel:
    name, extra = ARCHITECTURES[architecture]
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        config_of(name, extra), dtype=torch.float32
    )
    return model


def save(architecture: str, folder: Path, **kwargs: Any) -> Path:
    """`kwargs`: of `save_pretrained`."""
    model_of(architecture).save_pretrained(str(folder), **kwargs)
    return folder


@cache
def stored(architecture: str, parent: Path) -> tuple[Path, Tensors]:
    """An undamaged folder below `parent`, and its tensors."""
    folder = save(architecture, parent / architecture)
    return folder, load_file(str(folder / "model.safetensors"))


def copy_with(source: Path, folder: Path, tensors: Tensors) -> Path:
    """The folder with other tensors in its file."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes((source / "config.json").read_bytes())
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return folder


def change_config(folder: Path, **changes: Any) -> Path:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | changes))
    return folder


def problems(folder: Path) -> list[str]:
    return check.weight_problems(
        folder, AutoConfig.from_pretrained(folder), f"model.path is {folder.name}"
    )


def load(folder: Path) -> tuple[PreTrainedModel, dict[str, Any]]:
    """transformers' own load, the oracle: the model, and what it left over, missed or resized.

    A conversion that fails is reported as an error message.
    """
    loader: Any = AutoModelForCausalLM.from_pretrained
    try:
        model, info = loader(str(folder), output_loading_info=True, ignore_mismatched_sizes=True)
    except RuntimeError as error:
        return model_of(next(iter(ARCHITECTURES))), {"error_msgs": [str(error)]}
    return model, info


def removed(tensors: Tensors, name: str) -> Tensors:
    return {key: value for key, value in tensors.items() if key != name}


def renamed(tensors: Tensors, name: str) -> Tensors:
    return {f"{key}_old" if key == name else key: value for key, value in tensors.items()}


def resized(tensors: Tensors, name: str) -> Tensors:
    """One row more."""
    value = tensors[name]
    return tensors | {name: torch.cat([value, value[:1]])}


def of_integers(tensors: Tensors, name: str) -> Tensors:
    return tensors | {name: tensors[name].mul(100).to(torch.int8)}


def with_nan(tensors: Tensors, name: str) -> Tensors:
    value = tensors[name].clone()
    value.view(-1)[value.numel() // 3] = torch.nan
    return tensors | {name: value}


DAMAGES: dict[str, Callable[[Tensors, str], Tensors]] = {
    "removed": removed,
    "renamed": renamed,
    "resized": resized,
    "of integers": of_integers,
    "with nan": with_nan,
}
