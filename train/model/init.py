"""Random weights of a model that is trained from scratch."""

from typing import Any

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from ropewalk.train.zero.params import gathered, is_partitioned, zero3_init


def random_init(
    config: PreTrainedConfig, dtype: torch.dtype, seed: int, deepspeed_config: dict[str, Any] | None
) -> PreTrainedModel:
    """Weights drawn from `seed`, partitioned under stage 3; the same for any stage and any number
    of ranks.

    Rank 0 draws partitioned weights and sends them to the others.
    """
    torch.manual_seed(seed)
    with zero3_init(deepspeed_config):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if not is_partitioned(model):
        return model
    torch.manual_seed(seed)
    state_dict = None
    if dist.get_rank() == 0:
        state_dict = AutoModelForCausalLM.from_config(config, dtype=dtype).state_dict()
    for name, parameter in model.named_parameters():
        with gathered(parameter, modifier_rank=0):
            if state_dict is not None:
                parameter.data.copy_(state_dict[name])
    return model
