"""torch.compile of each decoder layer's norms and MLP, which are memory-bound; after tiling.

The attention stays outside every graph: document borders, which change with each row, then need no
guards, and the exchange of heads under sequence parallelism is in no graph.
"""

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ropewalk.conf.errors import ConfigError
from ropewalk.train.memory.tiled_mlp import TiledForward


def enable(model: nn.Module) -> int:
    """Compile in place, at the first call. Returns the number of compiled modules.

    Raises: ConfigError when a layer's attention cannot be identified.
    """
    # the default is to continue uncompiled without a message
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    count = 0
    for name, layer in model.named_modules():
        if not isinstance(layer, GradientCheckpointingLayer):
            continue
        children = list(layer.children())
        # transformers numbers the attention modules, and only these
        modules = [child for child in children if not hasattr(child, "layer_idx")]
        if len(modules) == len(children):
            raise ConfigError(
                "train.memory.compile is True; it compiles the modules around a layer's attention, "
                f"and no attention is known in {name}; set train.memory.compile=false"
            )
        for module in modules:
            if isinstance(module.forward, TiledForward):
                module.forward.compile()
            else:
                module.compile()
        count += len(modules)
    return count
