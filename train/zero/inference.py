"""A model that is only measured, in parts on all ranks (ZeRO 3): for one that no device holds."""

from typing import Any

import deepspeed
import torch
from torch import nn
from transformers import PreTrainedModel

from ropewalk.train.zero.mesh import device

WEIGHTS_SHARE = 0.6
"""Of a device's memory, for whole weights; the rest is for activations and one chunk of logits."""


class Body(nn.Module):
    """The model without its head, in one call: the module that DeepSpeed sees a pass of."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> Any:
        return self.model.base_model(**inputs)


def inference_config(dtype: torch.dtype) -> dict[str, Any]:
    """DeepSpeed's configuration, without an optimizer."""
    return {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": 3},
        "bf16": {"enabled": dtype == torch.bfloat16},
        "steps_per_print": 1 << 30,
    }


def partitioned_body(model: PreTrainedModel) -> nn.Module:
    """Collective. The body of a model that was built under `inference_config`: its weights are
    gathered layer by layer, on every rank at once, so all ranks must call it equally often."""
    engine, *_ = deepspeed.initialize(
        model=Body(model), config=inference_config(model.dtype), dist_init_required=False
    )
    engine.eval()
    return engine  # type: ignore[no-any-return]


def release(body: nn.Module) -> None:
    """Give back the memory of a body's weights: DeepSpeed keeps its engines."""
    engine: Any = body
    parameters = list(engine.module.parameters())
    engine.destroy()
    for parameter in parameters:
        parameter.ds_tensor.data = torch.empty(0, dtype=parameter.dtype)


def fits_device(parameters: int, dtype: torch.dtype) -> bool:
    """Whether this rank's device holds this many weights; a CPU does."""
    target = device()
    if target.type != "cuda":
        return True
    memory = torch.cuda.get_device_properties(target).total_memory
    return parameters * dtype.itemsize <= WEIGHTS_SHARE * memory
