"""What names of the model settings must match, asked of a model without storage: before a token is written or a rank started."""

from dataclasses import replace

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

from ropewalk.conf.train import TrainConfig
from ropewalk.train.adapters import attach
from ropewalk.train.optim import param_groups


def refuse_unmatched(config: PreTrainedConfig, train: TrainConfig) -> None:
    """Raises: ConfigError for patterns and targets that match nothing, and without peft or what a quantised base needs."""
    if not train.optimizer.patterns() and not train.lora.rank:
        return
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    # names are the same without what looks at values
    attach.attach(model, replace(train.lora, dora=False, init="default"), seed=0)
    param_groups.set_requires_grad(model, train)
    if train.lora.rank:
        attach.fully_trained(model)
