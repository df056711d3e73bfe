"""ZeRO's gradients and states of one rank, for a trace: their sizes and lifetimes.

P elements of the trained parameters   W ranks
"""

from collections.abc import Sequence

import torch
from torch import nn

from ropewalk.train.trace.live_bytes import LiveBytes


class ShardedAdamW:
    """Sums of gradients in fp32 and AdamW's states of this rank's part, P / W from stage 1 on.

    At stage 1 the sums are those of all P elements, at stages 2 and 3 of the part. A gradient lives
    until it is added to them. At stage 0 the gradients are kept, and AdamW steps the parameters.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], stage: int, world_size: int, live: LiveBytes
    ) -> None:
        self.parameters, self.stage, self.live = parameters, stage, live
        count = sum(p.numel() for p in parameters)
        self.part = -(-count // world_size)
        self.sums: torch.Tensor | None = None
        self.masters: list[nn.Parameter] = list(parameters)
        if stage:
            device = parameters[0].device
            masters = nn.Parameter(torch.empty(self.part, dtype=torch.float32, device=device))
            live.add(masters, "optimizer")
            self.masters = [masters]
            summed = count if stage == 1 else self.part
            self.sums = torch.zeros(summed, dtype=torch.float32, device=device)
            live.add(self.sums, "gradients")
        for parameter in parameters:
            parameter.register_post_accumulate_grad_hook(self._accumulate)
        self.adamw = torch.optim.AdamW(self.masters, fused=True)

    def _accumulate(self, parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        if self.sums is None:
            self.live.add(parameter.grad, "gradients")
            return
        size = min(parameter.numel(), self.part) if self.stage > 1 else parameter.numel()
        self.sums[:size].add_(parameter.grad.flatten()[:size])
        parameter.grad = None

    def gradient_norm(self) -> torch.Tensor:
        """The norm of this rank's part, ()."""
        if self.sums is not None:
            return torch.linalg.vector_norm(self.sums)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients)

    def step(self) -> None:
        """AdamW's step, and the new weights into the parameters."""
        if self.sums is not None:
            self.masters[0].grad = self.sums[: self.part]
        self.adamw.step()
        for state in self.adamw.state.values():
            for tensor in state.values():
                self.live.add(tensor, "optimizer")
        for parameter in self.parameters if self.stage else ():
            size = min(parameter.numel(), self.part)
            parameter.data.view(-1)[:size].copy_(self.masters[0].data[:size])
        self.adamw.zero_grad(set_to_none=True)
