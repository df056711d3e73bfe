"""How a GGUF file says a plan's table to llama.cpp: by scaling keys where they say it exactly, else by a table of divisors."""

from collections.abc import Iterator

import numpy as np

from ropewalk.train.export.compare import RTOL, apart
from ropewalk.train.export.formulas import GgufRope, llama_cpp, unscaled
from ropewalk.train.rope.plan import RopePlan

ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
}  # model_type -> llama.cpp's
WITH_FREQS = ("llama",)  # of these, llama.cpp loads `rope_freqs.weight`


class NotInGguf(Exception):
    """Why no GGUF file can hold this model; told, not a failure of the export."""


def keys(plan: RopePlan, architecture: str) -> GgufRope:
    """The rotary keys for llama.cpp's `architecture`. Raises: NotInGguf, with the reason."""
    if plan.short_inv_freq is not None:
        raise NotInGguf(
            f"rope={plan.method} has another table for short texts, and a GGUF file holds one table"
        )
    for found in candidates(plan, architecture):
        table, factor = llama_cpp(found, 2 * len(plan.inv_freq))
        if (
            not apart(table, np.array(plan.inv_freq))
            and abs(factor / plan.attention_factor - 1) <= RTOL
        ):
            return found
    raise NotInGguf(
        f"llama.cpp has no words for this table in the architecture {architecture}: its keys say default YaRN, linear and theta, and it "
        f"loads a free table for {', '.join(WITH_FREQS)} only"
    )


def candidates(plan: RopePlan, architecture: str) -> Iterator[GgufRope]:
    """From the plainest words to a free table; `attn_factor` is what is missing to the attention factor."""
    p = plan.rope_parameters
    yield with_factor(plan, GgufRope(freq_base=p["rope_theta"]))
    if p["rope_type"] == "linear":
        yield with_factor(
            plan, GgufRope(freq_base=p["rope_theta"], scaling="linear", factor=p["factor"])
        )
    if p["rope_type"] == "yarn":
        yield with_factor(
            plan,
            GgufRope(
                freq_base=p["rope_theta"],
                scaling="yarn",
                factor=p["factor"],
                original=p["original_max_position_embeddings"],
            ),
        )
    if architecture in WITH_FREQS:
        divisors = unscaled(p["rope_theta"], 2 * len(plan.inv_freq)) / np.array(plan.inv_freq)
        yield with_factor(
            plan, GgufRope(freq_base=p["rope_theta"], rope_freqs=divisors.astype(np.float32))
        )


def with_factor(plan: RopePlan, found: GgufRope) -> GgufRope:
    """The same with the multiplier that makes its attention factor the plan's; exactly 1 where it is already."""
    _, factor = llama_cpp(found, 2 * len(plan.inv_freq))
    missing = plan.attention_factor / factor
    values = {**vars(found), "attn_factor": 1.0 if abs(missing - 1) <= RTOL else missing}
    return GgufRope(**values)
