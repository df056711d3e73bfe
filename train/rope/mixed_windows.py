"""Mixed windows (LongRoPE2, arXiv 2502.20082, section 3.3): training keeps what the base could do.

A document that fits the base's window is read with the base's own rotary table, a longer one with
the plan's, side by side in one packed row.

    S tokens of this rank's slice   D rotary dimensions
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from ropewalk.conf.errors import ConfigError
from ropewalk.train.rope import plan as rope_plan
from ropewalk.train.rope import proof
from ropewalk.train.rope.plan import RopePlan


def short_tokens(ends: Sequence[int], window: int, first: int, count: int) -> np.ndarray:
    """Which of the tokens `[first, first + count)` belong to a document of at most `window` tokens.

    `ends`: 0 and the end of each document -> (count,) bool.
    """
    lengths = np.diff(ends)
    tokens = np.arange(first, first + count)
    document = np.searchsorted(np.asarray(ends[1:]), tokens, side="right")
    short: np.ndarray = lengths[document] <= window
    return short


class MixedWindows:
    """The table of each token: set by `choose` before a forward call.

    Until then, and in eval and export, every token has the plan's table.
    """

    def __init__(self, window: int, sp_rank: int) -> None:
        self.window, self.sp_rank = window, sp_rank
        self.short: torch.Tensor | None = None  # (1, S, 1) bool

    def choose(self, ends: Sequence[int] | None, count: int, device: torch.device) -> None:
        """`ends`: the documents of the full sequence; None: the plan's table for every token.

        This rank reads the `sp_rank`-th slice of `count` tokens.
        """
        if ends is None:
            self.short = None
            return
        short = short_tokens(ends, self.window, self.sp_rank * count, count)
        self.short = torch.from_numpy(short).to(device, non_blocking=True)[None, :, None]

    def forward(
        self, scaled: Callable[..., Any], original: nn.Module, layer_type: str | None
    ) -> Callable[..., Any]:
        """A replacement for a rotary module's forward.

        It returns cos and sin (1, S, D), or a complex (1, S, D / 2), chosen from both tables token
        by token.
        """

        def mixed(x: torch.Tensor, position_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            output = scaled(x, position_ids, *args, **kwargs)
            other_layers = layer_type is not None and layer_type not in (*args, *kwargs.values())
            if self.short is None or other_layers:
                return output
            base_output = original(x, position_ids, *args, **kwargs)
            if isinstance(output, torch.Tensor):  # complex: cos and sin in one
                return torch.where(self.short, base_output, output)
            return tuple(
                torch.where(self.short, of_base, of_plan)
                for of_base, of_plan in zip(base_output, output, strict=True)
            )

        return mixed


def install(model: PreTrainedModel, plan: RopePlan, sp_rank: int) -> MixedWindows:
    """Replace the forward of a live model's rotary modules, after `proof.prove`.

    The base's table is no part of the model: no cast reaches it, and no export holds it.
    Raises: ConfigError when the plan does not have one table of cos and sin to choose from.
    """
    _refuse_several_tables(plan)
    config = rope_plan.apply(plan.unscaled, copy.deepcopy(model.config))
    mixed = MixedWindows(plan.base_window, sp_rank)
    for module in proof.rotary_modules(model).values():
        rotary_class: Any = type(module)
        original = rotary_class(config=config).to(next(iter(module.buffers())).device)
        forward = mixed.forward(module.forward, original, plan.layer_type)
        module.forward = forward  # type: ignore[method-assign]
    return mixed


def _refuse_several_tables(plan: RopePlan) -> None:
    if plan.qk_head_dim is not None:
        raise ConfigError(
            "train.mixed_windows is True; the model's heads have decoupled rotary dimensions, "
            "whose temperature lies in the softmax scale of all tokens; set "
            "train.mixed_windows=false"
        )
    if plan.short_inv_freq is not None:
        raise ConfigError(
            f"train.mixed_windows is True; rope={plan.method} switches its table by the row's "
            "longest document already; choose rope=yarn, or set train.mixed_windows=false"
        )
