"""The micro-batches of an optimizer step, the global gradient norm, then the step or none.

DeepSpeed computes the norm inside `engine.step()` and silently skips on inf or nan. Here it is
computed once, before, and handed to `engine.step()`, so that a bad step can be skipped.
"""

from collections.abc import Iterator
from typing import Any

import torch
from deepspeed.runtime.utils import combine_grad_norm_groups

from ropewalk.train.zero.engine import Engine, patched_method
from ropewalk.train.zero.mesh import Mesh

INVALID = -1.0  # DeepSpeed's norm of a gradient with inf or nan


def accumulate(engine: Engine, num_micro_batches: int) -> Iterator[int]:
    """Number the micro-batches of one optimizer step, telling the engine which is the last.

    `OptimizerStep` ends the step after the last one.
    """
    # set_train_batch_size would need the data-parallel size, which is None with sp_size > 1
    engine._config.gradient_accumulation_steps = num_micro_batches
    if hasattr(engine.optimizer, "gradient_accumulation_steps"):
        engine.optimizer.gradient_accumulation_steps = num_micro_batches
    for micro_batch in range(num_micro_batches):
        is_last = micro_batch + 1 == num_micro_batches
        engine.set_gradient_accumulation_boundary(is_last)
        yield micro_batch
        if not is_last:
            engine.step()  # only counts the micro-batch


def gradient_scale(mesh: Mesh, num_micro_batches: int, zero_stage: int) -> int:
    """The factor that undoes the engine's averages, so that gradients are those of the summed loss.

    Stages 0 to 2 divide by dp_size and micro-batches, stage 3 by world_size and micro-batches; the
    tests pin this against one process.
    """
    return mesh.dp_size * num_micro_batches * (mesh.sp_size if zero_stage == 3 else 1)


class OptimizerStep:
    """The end of one step: create it after the last backward pass, then call `apply` or `skip`.

    Collective: every rank does the same.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine, self.stage = engine, engine.zero_optimization_stage()
        # the norm as the engine's optimizer takes it: one of each parameter group at stage 3
        self._zero_norm = self._compute_norm()
        is_list = self.stage == 3
        self.grad_norm = float(
            combine_grad_norm_groups(self._zero_norm) if is_list else self._zero_norm
        )
        """L2 norm of the averaged gradient before clipping; may be inf or nan."""

    def _compute_norm(self) -> Any:
        if self.stage == 0:
            parameters = self.engine.module.parameters()
            return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        optimizer = self.engine.optimizer
        return optimizer._get_norm_groups() if self.stage == 3 else optimizer.scaled_global_norm()

    def apply(self) -> None:
        """Clip and update the weights, with the norm that was computed."""
        if self.stage == 0:
            self.engine.step()
            return
        self._step_with_norm(self._zero_norm)
        assert not self.engine.optimizer.overflow

    def skip(self) -> None:
        """Drop the gradient and leave weights and optimizer states as they are."""
        if self.stage == 0:
            # without ZeRO the engine cannot skip: let it step with nothing clipped and no update
            with (
                patched_method(self.engine.optimizer, "step", None),
                patched_method(self.engine, "clip_fp32_gradients", None),
            ):
                self.engine.step()
            return
        invalid = torch.full((), INVALID, device=self.engine.device)
        self._step_with_norm([invalid] if self.stage == 3 else invalid)
        assert self.engine.optimizer.overflow
        if self.stage != 3:
            # with an offloaded optimizer DeepSpeed keeps a skipped gradient and would add the next
            # to it; parameters look into this dict, so it is emptied in place
            gradients = self.engine.optimizer.averaged_gradients
            gradients.update(dict.fromkeys(gradients))

    def _step_with_norm(self, norm: Any) -> None:
        name = "_get_norm_groups" if self.stage == 3 else "scaled_global_norm"
        with patched_method(self.engine.optimizer, name, norm):
            self.engine.step()
