"""The full weights with the adapter added, in host memory, named as in the model without one."""

import copy
from typing import Any

import torch
from transformers import PreTrainedModel

from ropewalk.train.adapters.attach import adapter_config, import_peft
from ropewalk.train.optim.param_groups import is_adapter

State = dict[str, torch.Tensor]


def merge_adapter(model: PreTrainedModel, full_state: State) -> State:
    """Add the adapter to the weights. `full_state`: every full tensor of the live model by name.

    peft merges layer by layer, in fp32, in a copy of the model without storage. Other tensors are
    passed through; each weight keeps its dtype.
    """
    state = {name: t for name, t in full_state.items() if not _is_in_wrapped_layer(name)}
    for name, layer in _meta_copy(model).named_modules():
        if isinstance(layer, import_peft().tuners.lora.LoraLayer):
            prefix = f"{name}."
            layer_state = {
                key.removeprefix(prefix): tensor
                for key, tensor in full_state.items()
                if key.startswith(prefix)
            }
            layer.load_state_dict({k: t.float() for k, t in layer_state.items()}, assign=True)
            layer.merge(safe_merge=True)
            for key, tensor in layer.get_base_layer().state_dict().items():
                state[prefix + key] = tensor.to(layer_state[f"base_layer.{key}"].dtype)
    names = (name.replace(".base_layer.", ".") for name in full_state)
    return {name: state[name] for name in names if not is_adapter(name)}


def _is_in_wrapped_layer(name: str) -> bool:
    """Whether a parameter belongs to an adapter or to the layer `L.base_layer` that it adapts."""
    return is_adapter(name) or "base_layer" in name.split(".")


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
