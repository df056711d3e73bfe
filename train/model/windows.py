"""Limits that still name the old window, in the files beside a model's weights: raised to the new.

`max_position_embeddings` is the plan's own. Other names of it cut texts too: vLLM serves the
smallest of them, transformers ends a generation at `max_length`, prompt included, and warns of
texts above `model_max_length`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.manifest import write_json
from ropewalk.train.rope.plan import RopePlan

CONFIG = (
    "n_positions", "n_ctx", "max_seq_len", "max_seq_length", "max_sequence_length", "seq_length",
    "seq_len", "model_max_length", "max_context_length", "context_length", "max_target_positions",
)  # fmt: skip
"""The names that vLLM's `_get_and_verify_max_len` reads, and those of other programs."""
TOKENIZER = ("model_max_length", "max_len")
GENERATION = ("max_length",)


def raise_limits(folder: Path, plan: RopePlan) -> Iterator[str]:
    """Raise what is below the plan's window in the JSON files of `folder`; never lower anything.

    Yields a line for each value. Raises: OSError, ValueError for a file that is no JSON.
    """
    window = plan.max_position_embeddings
    files = {
        "config.json": (CONFIG, plan.config_window),
        "generation_config.json": (GENERATION, window),
        "tokenizer_config.json": (TOKENIZER, window),
    }
    for name, (keys, limit) in files.items():
        path = folder / name
        content: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        low = [key for key in keys if _is_below(content.get(key), limit)]
        yield from (f"{name}: {key} {content[key]} -> {limit}, the new window" for key in low)
        if low:
            write_json(path, {**content, **dict.fromkeys(low, limit)})


def _is_below(value: object, limit: int) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < limit
