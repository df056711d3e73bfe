"""Models that compute every document whole, without a cache, and why.

The calls that `engine.py` makes of a document give the same as one pass only where a token's keys
and values do not depend on the call that computes them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import get_layer_types_and_kwargs

from ropewalk.eval.engine import passes
from ropewalk.eval.engine.branch_attention import NAME, attend_branches
from ropewalk.eval.engine.branches import Branch, BranchCache
from ropewalk.eval.engine.cache import AppendCache
from ropewalk.eval.engine.forward import Forward
from ropewalk.train.model.attention_swap import swapped_attention

CACHED_LAYERS = {"full_attention", "sliding_attention"}
TOKENS, FIRST = 9, 5
"""Of the proof: a document, and its first call."""


def number_of_layers(config: PreTrainedConfig) -> int:
    return int(config.get_text_config(decoder=True).num_hidden_layers)  # type: ignore[attr-defined]


def why_whole(model: PreTrainedModel) -> str:
    """Why the model computes every document whole; empty where it need not."""
    config = model.config.get_text_config(decoder=True)
    for parameters in _rope_tables(getattr(config, "rope_parameters", None) or {}):
        if _depends_on_the_call(parameters):
            kind = parameters["rope_type"]
            return f"its rotary table ({kind}) depends on the length of the call"
    if not type(model).__module__.startswith("transformers."):
        return "its code came with it, and its cache is not known"
    if others := sorted({*get_layer_types_and_kwargs(config)[0]} - CACHED_LAYERS):
        return f"it has layers whose state is not keys and values alone ({', '.join(others)})"
    return ""


def _rope_tables(parameters: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """One for all layers, or one for each type of layer."""
    tables = [table for table in parameters.values() if isinstance(table, Mapping)]
    yield from tables or [parameters]


def _depends_on_the_call(parameters: Mapping[str, Any]) -> bool:
    kind = parameters.get("rope_type")
    switches = parameters.get("short_factor") != parameters.get("long_factor")
    return kind == "dynamic" or (kind == "longrope" and switches)


def forget_longest_call(model: PreTrainedModel) -> None:
    """Let the next call have the dynamic table of its own length.

    transformers keeps the table of the longest call for every later one that is longer than the
    original window, so that a result depended on what was measured before.
    """
    for module in model.modules():
        for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
            setattr(module, name, 0)


def cached_calls_differ(forward: Forward) -> float:
    """How far the hidden states of two calls and of decoding steps are from those of one pass.

    In units of the rounding that several layers may make: above 1 the cache is not the model's.
    """
    model = forward.model
    ids = np.arange(1, TOKENS + 1)
    one_pass = forward.hidden(passes.packed([ids], forward.device))
    cache = AppendCache(number_of_layers(model.config), TOKENS)
    calls = [
        forward.hidden(passes.chunk(ids[:FIRST], 0, cache, forward.device)),
        forward.hidden(passes.chunk(ids[FIRST:], FIRST, cache, forward.device)),
    ]
    branches = BranchCache([Branch.of(cache, FIRST, FIRST)], TOKENS - FIRST)
    steps = []
    with swapped_attention(model, NAME, attend_branches):
        for token in ids[FIRST:].tolist():
            steps.append(forward.hidden(passes.step([token], branches)))
            branches.advance()
    distances = [torch.cat(calls) - one_pass, torch.cat(steps) - one_pass[FIRST:]]
    largest = max(float(distance.abs().max()) for distance in distances)
    return largest / (torch.finfo(model.dtype).eps ** 0.5 * float(one_pass.abs().max()))
