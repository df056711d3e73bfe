"""A plan's rotary table as GGUF keys: scaling keys where they give it exactly, else divisors."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ropewalk.train.export.compare import RTOL, computes_plan
from ropewalk.train.export.formulas import GgufRope, llama_cpp, scaling_keys, unscaled
from ropewalk.train.rope.plan import RopePlan

# model_type -> llama.cpp's
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
WITH_FREQS = ("llama",)  # llama.cpp loads `rope_freqs.weight` for these


class GgufUnsupported(Exception):
    """Why no GGUF file can hold this model. The export goes on without one and reports it."""


def rope_keys(plan: RopePlan, architecture: str) -> GgufRope:
    """The rotary keys for llama.cpp's `architecture`. Raises: GgufUnsupported, with the reason."""
    if plan.short_inv_freq is not None:
        raise GgufUnsupported(
            f"rope={plan.method} has another table for short texts, and a GGUF file holds one table"
        )
    for candidate in candidates(plan, architecture):
        keys = with_attention_factor(plan, candidate)
        table = llama_cpp(keys, 2 * len(plan.inv_freq))
        if computes_plan(plan, table, table):
            return keys
    raise GgufUnsupported(
        f"llama.cpp has no keys for this table in the architecture {architecture}: they express "
        "default YaRN, linear and theta, and it loads a free table for "
        f"{', '.join(WITH_FREQS)} only"
    )


def candidates(plan: RopePlan, architecture: str) -> Iterator[GgufRope]:
    """Keys to try: theta alone, the plan's own scaling, a free table."""
    theta = plan.rope_parameters["rope_theta"]
    yield GgufRope(freq_base=theta)
    yield scaling_keys(plan.rope_parameters)
    if architecture in WITH_FREQS:
        divisors = unscaled(theta, 2 * len(plan.inv_freq)) / np.array(plan.inv_freq)
        yield GgufRope(freq_base=theta, rope_freqs=divisors.astype(np.float32))


def with_attention_factor(plan: RopePlan, keys: GgufRope) -> GgufRope:
    """The keys with the multiplier to the plan's attention factor; exactly 1 if they agree."""
    _, factor = llama_cpp(keys, 2 * len(plan.inv_freq))
    multiplier = plan.attention_factor / factor
    return replace(keys, attn_factor=1.0 if abs(multiplier - 1) <= RTOL else multiplier)
