"""The model with its adapter added to the weights, in host memory: the names and shapes of the model without one."""

import copy
from typing import Any

import torch

from ropewalk.train.adapters.attach import config_of, inject, library


def merged(model: Any, whole: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`whole`: every tensor of the live model by name. peft merges layer by layer, in fp32, in a copy of the model that has no memory of its own.

    What has no adapter is passed on as it is; each weight keeps its dtype.
    """
    shell = _shell(model)
    found = {name: tensor for name, tensor in whole.items() if not _of_adapter(name)}
    for name, layer in shell.named_modules():
        if isinstance(layer, library().tuners.lora.LoraLayer):
            mine = {
                key.removeprefix(f"{name}."): t
                for key, t in whole.items()
                if key.startswith(f"{name}.")
            }
            layer.load_state_dict({key: t.float() for key, t in mine.items()}, assign=True)
            layer.merge(safe_merge=True)
            for key, tensor in layer.get_base_layer().state_dict().items():
                found[f"{name}.{key}"] = tensor.to(mine[f"base_layer.{key}"].dtype)
    return {key: found[key] for key in _plain(whole)}


def bare(model: Any) -> Any:
    """The model without adapter, quantization and storage: what `merged` is saved with."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        found = type(model)(config).to(model.dtype)
    found.generation_config = model.generation_config
    return found


def _shell(model: Any) -> Any:
    """The same modules without storage."""
    config = copy.deepcopy(config_of(model))
    config.init_lora_weights = False
    shell = bare(model)
    with torch.device("meta"):
        inject(shell, config)
    return shell


def _of_adapter(name: str) -> bool:
    return any(part == "base_layer" or part.startswith("lora_") for part in name.split("."))


def _plain(whole: dict[str, torch.Tensor]) -> list[str]:
    """The names without the adapter's, in the model's order."""
    kept = [name for name in whole if not any(part.startswith("lora_") for part in name.split("."))]
    return [name.replace(".base_layer.", ".") for name in kept]
