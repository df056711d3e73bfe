"""Checks adapter targets and parameter patterns on a model without storage, before the ranks."""

from dataclasses import replace

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from ropewalk.conf.train import TrainConfig
from ropewalk.train.adapters import attach
from ropewalk.train.optim import param_groups


def refuse_unmatched(config: PreTrainedConfig, train: TrainConfig) -> None:
    """Raises: ConfigError for a pattern or target without a match, and for a missing package."""
    if not train.optimizer.patterns() and not train.lora.rank:
        return
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    # DoRA and the other initialisations read values, which meta tensors lack; names do not change.
    attach.attach(model, replace(train.lora, dora=False, init="default"), seed=0)
    param_groups.set_requires_grad(model, train)
    if train.lora.rank:
        attach.fully_trained_modules(model)
