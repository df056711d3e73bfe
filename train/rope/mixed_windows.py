"""Mixed windows (LongRoPE2, arXiv 2502.20082, section 3.3): a document that fits the base's window is read with the base's own
rotary table, a longer one with the plan's, side by side in one packed row. So training keeps what the model could do before.

S tokens of this rank's slice   D rotary dimensions
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ropewalk.conf.errors import ConfigError
from ropewalk.train.rope import plan as rope_plan
from ropewalk.train.rope import proof
from ropewalk.train.rope.plan import RopePlan


def short_tokens(ends: Sequence[int], window: int, low: int, count: int) -> np.ndarray:
    """Which of the tokens `[low, low + count)` stand in a document of at most `window` tokens. `ends`: 0, each border -> (count,) bool."""
    lengths = np.diff(ends)
    document = np.searchsorted(np.asarray(ends[1:]), np.arange(low, low + count), side="right")
    found: np.ndarray = lengths[document] <= window
    return found


class MixedWindows:
    """What chooses the table of each token: `choose` before a forward call; without it, and in eval and export, all is the plan's."""

    def __init__(self, window: int, sp_rank: int = 0) -> None:
        self.window, self.sp_rank = window, sp_rank
        self.short: torch.Tensor | None = None  # (1, S, 1)

    def choose(self, ends: Sequence[int] | None, count: int, device: torch.device) -> None:
        """`ends`: the documents of the whole line, of which this rank reads the `sp_rank`-th stretch of `count` tokens; None: the plan's
        table for all."""
        if ends is None:
            self.short = None
            return
        short = short_tokens(ends, self.window, self.sp_rank * count, count)
        self.short = torch.from_numpy(short).to(device, non_blocking=True)[None, :, None]

    def forward(
        self, scaled: Callable[..., Any], original: nn.Module, layer_type: str | None
    ) -> Callable[..., Any]:
        """In place of a rotary module's forward: cos and sin (1, S, D) of both tables, chosen token by token."""

        def both(x: torch.Tensor, position_ids: torch.Tensor, *rest: Any, **named: Any) -> Any:
            found = scaled(x, position_ids, *rest, **named)
            if self.short is None or (
                layer_type is not None and layer_type not in (*rest, *named.values())
            ):
                return found
            own = original(x, position_ids, *rest, **named)
            if isinstance(found, torch.Tensor):  # complex: cos and sin in one
                return torch.where(self.short, own, found)
            return tuple(torch.where(self.short, a, b) for a, b in zip(own, found, strict=True))

        return both


def install(model: Any, plan: RopePlan, sp_rank: int = 0) -> MixedWindows:
    """Put the choice into a live model whose tables are the plan's, proved before. The base's table is no part of the model: no cast
    reaches it, and no export holds it.

    Raises: ConfigError for a plan that has no one table of cos and sin to choose against.
    """
    _refuse(plan)
    config = rope_plan.apply(plan.unscaled, copy.deepcopy(model.config))
    mixed = MixedWindows(plan.base_window, sp_rank)
    for module in proof.rotary_modules(model).values():
        kind: Any = type(module)
        original = kind(config=config).to(_device(module))
        module.forward = mixed.forward(module.forward, original, plan.layer_type)  # type: ignore[method-assign]
    return mixed


def _device(module: nn.Module) -> torch.device:
    return next(iter(module.buffers())).device


def _refuse(plan: RopePlan) -> None:
    if plan.qk_head_dim is not None:
        raise ConfigError(
            "train.mixed_windows is True; the model's heads have decoupled rotary dimensions, whose temperature lies in the softmax scale "
            "of all tokens; set train.mixed_windows=false"
        )
    if plan.resting_inv_freq is not None:
        raise ConfigError(
            f"train.mixed_windows is True; rope={plan.method} switches its table by the row's longest document already; choose rope=yarn, or "
            "set train.mixed_windows=false"
        )
