"""What every kernel is given and what none does: what would be ignored in silence is refused."""

from typing import Any

import torch

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.layout import Ends

UNKNOWN = {
    "softcap": "soft-caps its attention scores",
    "position_bias": "adds a bias of positions to its attention scores",
    "indices": "attends to chosen tokens only",
    "block_indices": "attends to chosen blocks only",
    "sinks": "has attention sinks of its own form",
}


def check(
    module: Any, query: torch.Tensor, key: torch.Tensor, ends: Ends, dropout: float, words: dict[str, Any]
) -> None:
    """Raises: ConfigError for what the model asks and no kernel does, ValueError for shapes that do not belong together."""
    if query.shape[0] != 1:
        raise ValueError(f"batch is {query.shape[0]}; rows are laid end to end, so it must be 1; join the rows")
    if not query.shape[2] == key.shape[2] == ends[-1]:
        raise ValueError(
            f"query has {query.shape[2]} tokens, key {key.shape[2]} and the documents {ends[-1]}; they must be one sequence; "
            "give the borders of the whole sequence, and no cache"
        )
    if dropout:
        raise ConfigError(
            f"attention_dropout is {dropout}; it must be 0 for a reproducible extension; set it to 0 in the model's config"
        )
    for word, does in UNKNOWN.items():
        if words.get(word) is not None:
            raise ConfigError(
                f"model.path has an attention that {does}; the trainer's kernels do not; choose another model"
            )
    if words.get("is_causal") is False or getattr(module, "is_causal", True) is False:
        raise ConfigError(
            "model.path has an attention that looks ahead; a decoder is trained on what came before; choose another model"
        )
