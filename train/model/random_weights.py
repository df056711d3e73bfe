"""Weights drawn at random, for a base that is made from scratch."""

from typing import Any

import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from ropewalk.train.zero import params


def draw(
    config: PreTrainedConfig,
    dtype: torch.dtype,
    seed: int,
    deepspeed_config: dict[str, Any] | None = None,
) -> PreTrainedModel:
    """Weights drawn from `seed` in fp32: the same for every dtype, stage and number of ranks.

    Under stage 3 they are partitioned: rank 0 draws them and sends them to the others.
    """
    if params.is_zero3(deepspeed_config):
        return _draw_partitioned(config, seed, deepspeed_config)
    model = _draw(config, seed)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def _draw(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-any-return]


def _draw_partitioned(
    config: PreTrainedConfig, seed: int, deepspeed_config: dict[str, Any] | None
) -> PreTrainedModel:
    with params.zero3_init(deepspeed_config):
        model = _draw(config, seed)
    state_dict = _draw(config, seed).state_dict() if dist.get_rank() == 0 else None
    for name, parameter in model.named_parameters():
        with params.gathered(parameter, modifier_rank=0):
            if state_dict is not None:
                parameter.data.copy_(state_dict[name])
    return model
