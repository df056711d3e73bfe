"""What a base's config names that transformers does not compute: told, a line each."""

import re
from typing import Any

from transformers import PreTrainedConfig

PREDICTED_AHEAD = re.compile(r"nextn_predict|(^|_)mtp_")
"""Layers that predict further tokens (DeepSeek-V3, arXiv 2412.19437, section 2.2)."""
LOSSES = re.compile(r"aux_loss|z_loss|label_smoothing|(^|_)loss_(coef|weight|alpha)")
COMPUTED = ("router_aux_loss_coef", "aux_loss_coef")
"""Coefficients of the router's loss, which train/router_loss.py handles."""
BALANCE_BIAS = ("noaux_tc",)
"""Values of `topk_method` for routers that are balanced by a bias of each expert."""


def notes(config: PreTrainedConfig) -> list[str]:
    """Lines for the user; empty for most bases."""
    lines = []
    values = {key: value for key, value in vars(config).items() if is_above_zero(value)}
    for key, value in values.items():
        if PREDICTED_AHEAD.search(key):
            lines.append(
                f"the base's config has {key} {value:g}; transformers builds no such layers: they "
                "are not trained, and the exported weights do not have them"
            )
        elif LOSSES.search(key) and key not in COMPUTED:
            lines.append(
                f"the base's config has {key} {value:g}; transformers computes no such loss for "
                f"{config.model_type}, and none is added"
            )
    if getattr(config, "topk_method", None) in BALANCE_BIAS:
        lines.append(
            "the base's router is balanced by a bias of each expert (topk_method noaux_tc); it "
            "has no gradient and stays as it is"
        )
    return lines


def is_above_zero(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
