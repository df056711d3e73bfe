"""torch.compile of what lies between the attentions: the norms and the MLP of each decoder layer, fused where they are memory-bound.

The attention stays outside every graph. So borders of documents, which change with each row, are guarded by nothing, and the
exchange of heads under sequence parallelism is no part of a graph either.
"""

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ropewalk.conf.errors import ConfigError


def enable(model: nn.Module) -> int:
    """Compile in place at the first call; returns how many modules. Raises: ConfigError when a layer's attention is not found."""
    torch._dynamo.config.fail_on_recompile_limit_hit = (
        True  # else it goes on uncompiled without a word
    )
    count = 0
    for name, layer in model.named_modules():
        if not isinstance(layer, GradientCheckpointingLayer):
            continue
        parts = list(layer.children())
        between = [part for part in parts if not hasattr(part, "layer_idx")]
        if len(between) == len(parts):
            raise ConfigError(
                f"train.compile is True; it compiles what lies around a layer's attention, and {name} has none that is known; "
                "set train.compile=false"
            )
        for part in between:
            part.compile()
        count += len(between)
    return count
