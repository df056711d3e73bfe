"""Gradients and states without ZeRO: whole, on the device, by torch's own AdamW."""

from collections.abc import Sequence

import torch
from torch import nn

from ropewalk.train.trace.live_bytes import LiveBytes


class WholeAdamW:
    """Keeps each gradient until the step, and both moments for good."""

    def __init__(self, parameters: Sequence[nn.Parameter], live: LiveBytes) -> None:
        self.parameters, self.live = parameters, live
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._label)
        self.adamw = torch.optim.AdamW(parameters, fused=True)

    def _label(self, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        self.live.add(parameter.grad, "gradients")

    def gradient_norm(self) -> torch.Tensor:
        """The norm, ()."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def step(self) -> None:
        self.adamw.step()
        for state in self.adamw.state.values():
            for tensor in state.values():
                self.live.add(tensor, "optimizer")
        self.adamw.zero_grad(set_to_none=True)
