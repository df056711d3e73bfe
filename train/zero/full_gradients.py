"""The gradients of a step in full, whatever the stage keeps of them; for proofs on small models."""

import torch
from deepspeed.utils import safe_get_full_grad

from ropewalk.train.zero.engine import Engine


def full_gradients(engine: Engine) -> dict[str, torch.Tensor]:
    """Collective. Float64 on the CPU, by parameter: after the last backward pass of a step and
    before the optimizer step. A parameter that has none is left out."""
    gradients = {}
    for name, parameter in engine.module.model.named_parameters():
        if not parameter.requires_grad:
            continue
        gradient = safe_get_full_grad(parameter)
        if gradient is not None:
            gradients[name] = gradient.detach().double().cpu().clone()
    return gradients
