"""The last look before an optimizer step: the norm of the whole gradient, and then the step, or none.

DeepSpeed takes the norm inside its step and skips one with inf or nan in silence; here it is asked first, once, and the step is told.
"""

from typing import Any

import torch
from deepspeed.runtime.utils import combine_grad_norm_groups

from ropewalk.train.zero.patches import patched_method

INVALID = -1.0  # what DeepSpeed's norms are where a gradient is inf or nan


class OptimizerStep:
    """After the last backward pass of a step, before `engine.step()`. Every rank uses it alike."""

    def __init__(self, engine: Any) -> None:
        self.engine, self.zero = engine, engine.zero_optimization_stage()
        self.norm = self._norm()

    def _norm(self) -> float:
        """L2 over the averaged gradient of all parameters, before clipping; inf or nan where an element is."""
        if self.zero == 0:
            gradients = [p.grad for p in self.engine.module.parameters() if p.grad is not None]
            return float(torch.nn.utils.get_total_norm(gradients))
        optimizer = self.engine.optimizer
        self.held = (
            optimizer._get_norm_groups() if self.zero == 3 else optimizer.scaled_global_norm()
        )
        return float(combine_grad_norm_groups(self.held) if self.zero == 3 else self.held)

    def step(self, apply: bool) -> None:
        """The optimizer's step with the norm that was taken; or DeepSpeed's own way out of a step, which drops the gradient."""
        if self.zero == 0:
            self.engine.step() if apply else self._drop()
            return
        invalid = torch.full((), INVALID, device=self.engine.device)
        norm = self.held if apply else [invalid] if self.zero == 3 else invalid
        with patched_method(
            self.engine.optimizer,
            "_get_norm_groups" if self.zero == 3 else "scaled_global_norm",
            norm,
        ):
            self.engine.step()
        assert self.engine.optimizer.overflow != apply
        if not apply and self.zero != 3:
            self._forget()

    def _forget(self) -> None:
        """DeepSpeed keeps a gradient in fp32 after a step that was not taken where the optimizer is offloaded, and adds the next one to it."""
        sums = self.engine.optimizer.averaged_gradients
        sums.update(dict.fromkeys(sums))  # the same dict: parameters look into it

    def _drop(self) -> None:
        """The engine without ZeRO knows no way out of a step: it goes through one in which nothing is clipped and nothing stepped."""
        with (
            patched_method(self.engine.optimizer, "step", None),
            patched_method(self.engine, "clip_fp32_gradients", None),
        ):
            self.engine.step()
