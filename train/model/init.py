""""""

from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from ropewalk.train.zero.params import is_partitioned, zero3_init


def random_init(
    config: PreTrainedConfig, dtype: torch.dtype, seed: int, settings: dict[str, Any] | None
) -> PreTrainedModel:
    """Random weights of `seed`, the same in pieces as whole, for any number of ranks: rank 0 draws them and gives them out."""
    torch.manual_seed(seed)
    with zero3_init(settings):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if not is_partitioned(model):
        return model
    torch.manual_seed(seed)
    drawn = (
        None
        if dist.get_rank()
        else AutoModelForCausalLM.from_config(config, dtype=dtype).state_dict()
    )
    for name, parameter in model.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):
            if drawn is not None:
                parameter.data.copy_(drawn[name])
    return model
