"""Weights with the adapter added, layer by layer, named as in the model without one."""

import copy
from typing import Any

import torch
from transformers import PreTrainedModel

from ropewalk.train.adapters.attach import adapter_config, import_peft
from ropewalk.train.optim.param_groups import is_adapter

State = dict[str, torch.Tensor]


class AdapterMerge:
    """Adds the adapter to the weights. peft merges a layer, in fp32, in a copy without storage."""

    def __init__(self, model: PreTrainedModel) -> None:
        lora_layer = import_peft().tuners.lora.LoraLayer
        self._layers: dict[str, Any] = {
            name: module
            for name, module in _meta_copy(model).named_modules()
            if isinstance(module, lora_layer)
        }

    def layer_of(self, name: str) -> str | None:
        """The adapted layer that the parameter `name` belongs to; None: it is not merged."""
        parts = name.split(".")
        prefixes = (".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))
        return next((prefix for prefix in prefixes if prefix in self._layers), None)

    def merge(self, state: State) -> State:
        """Merge full tensors of the live model: all of a layer, or others, which are kept.

        Each weight keeps its dtype.
        """
        by_layer: dict[str, State] = {}
        merged: State = {}
        for name, tensor in state.items():
            if (layer := self.layer_of(name)) is None:
                merged[name] = tensor
            else:
                by_layer.setdefault(layer, {})[name.removeprefix(f"{layer}.")] = tensor
        for name, layer_state in by_layer.items():
            layer = copy.deepcopy(self._layers[name])
            layer.load_state_dict({k: t.float() for k, t in layer_state.items()}, assign=True)
            layer.merge(safe_merge=True)
            for key, tensor in layer.get_base_layer().state_dict().items():
                merged[f"{name}.{key}"] = tensor.to(layer_state[f"base_layer.{key}"].dtype)
        return merged


def merged_name(name: str) -> str | None:
    """A parameter's name in the model without an adapter; None for one of the adapter."""
    return None if is_adapter(name) else name.replace(".base_layer.", ".")


def without_adapter(model: PreTrainedModel) -> PreTrainedModel:
    """The model without adapter, quantization and storage, to save a merged state with."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        bare = type(model)(config).to(model.dtype)  # type: ignore[arg-type]
    bare.generation_config = model.generation_config
    return bare


def _meta_copy(model: PreTrainedModel) -> Any:
    """The same modules, adapter included, without storage."""
    config = copy.deepcopy(adapter_config(model))
    config.init_lora_weights = False
    meta_model = without_adapter(model)
    with torch.device("meta"):
        import_peft().inject_adapter_in_model(config, meta_model)
    return meta_model
