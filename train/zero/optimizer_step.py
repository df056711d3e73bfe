"""The micro-batches of an optimizer step, the global gradient norm, then the step or none.

DeepSpeed computes the norm inside `engine.step()` and silently skips on inf or nan. Here it is
computed once, before, and handed to `engine.step()`, so that a bad step can be skipped.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from deepspeed.runtime.utils import combine_grad_norm_groups
from torch.overrides import TorchFunctionMode

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
    """The end of one step: create it after the last backward pass, call `read_with`, then `apply`
    or `skip`.

    Collective: every rank does the same.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine, self.stage = engine, engine.zero_optimization_stage()
        self._norms = self._compute_norms()
        self.grad_norm = math.nan
        """L2 norm of the averaged gradient before clipping; may be inf or nan. Read by
        `read_with`."""

    def _compute_norms(self) -> list[torch.Tensor]:
        """The norm as the engine's optimizer takes it: one of each parameter group at stage 3."""
        if self.stage == 0:
            parameters = self.engine.module.parameters()
            gradients = [p.grad for p in parameters if p.grad is not None]
            return [torch.nn.utils.get_total_norm(gradients)]
        optimizer = self.engine.optimizer
        with _FilledScalars():
            if self.stage == 3:
                return list(optimizer._get_norm_groups())
            return [optimizer.scaled_global_norm()]

    def read_with(self, value: torch.Tensor) -> float:
        """Read the norm and `value`, a scalar on the device, in one wait; returns `value`."""
        values = torch.stack([x.double() for x in (value, *self._norms)]).tolist()
        # on the host, so that the engine's checks of the norm wait for nothing
        self._norms = [
            torch.tensor(norm, dtype=x.dtype)
            for norm, x in zip(values[1:], self._norms, strict=True)
        ]
        is_list = self.stage == 3
        self.grad_norm = float(combine_grad_norm_groups(self._norms) if is_list else self._norms[0])
        return float(values[0])

    def apply(self) -> None:
        """Clip and update the weights, with the norm that was computed."""
        if self.stage == 0:
            with _FilledScalars():
                self.engine.step()
            return
        self._step_with_norms(self._norms)
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
        self._step_with_norms([torch.tensor(INVALID)])
        assert self.engine.optimizer.overflow
        if self.stage != 3:
            # with an offloaded optimizer DeepSpeed keeps a skipped gradient and would add the next
            # to it; parameters look into this dict, so it is emptied in place
            gradients = self.engine.optimizer.averaged_gradients
            gradients.update(dict.fromkeys(gradients))

    def _step_with_norms(self, norms: list[torch.Tensor]) -> None:
        """Step with these norms, (), on the host."""
        optimizer = self.engine.optimizer
        if self.stage == 3:
            with patched_method(optimizer, "_get_norm_groups", norms):
                self.engine.step()
            return
        with (
            patched_method(optimizer, "scaled_global_norm", norms[0]),
            # the norm has told already; DeepSpeed would look at every gradient once more
            patched_method(optimizer, "check_overflow", None),
        ):
            self.engine.step()


class _FilledScalars(TorchFunctionMode):
    """While open, a number becomes a tensor by a fill on the device.

    DeepSpeed writes `torch.tensor(-1.0, device=...)` beside its norms: a copy from the host, which
    the host waits for.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if func is torch.tensor and options.get("device") is not None:
            value = args[0]
            if isinstance(value, float):
                return torch.full((), value, **options)
            if isinstance(value, list) and len(value) == 1:
                return torch.full((1,), value[0], **options)
        return func(*args, **options)
