"""Each engine's rotary table against the plan's, and the keys that cause a difference."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ropewalk.train.export import formulas
from ropewalk.train.export.engines import ENGINES, LLAMA_CPP, Engine
from ropewalk.train.export.formulas import GgufRope, Parameters, Table
from ropewalk.train.rope.plan import RopePlan

RTOL = 1e-6  # a smaller relative difference is rounding
COMMON_KEYS = ("rope_type", "rope_theta", "partial_rotary_factor")  # what every engine reads
FACTOR_KEYS = ("attention_factor", "mscale", "mscale_all_dim")  # change the attention factor alone


@dataclass(frozen=True)
class Verdict:
    """One engine's row. None: not verified for this architecture or scaling."""

    version: str
    reads: list[str] | None
    drops: list[dict[str, str]]  # key, consequence
    inv_freq_max_rel: float | None  # for a text that fills the new window
    short_inv_freq_max_rel: float | None  # for a text inside the original window
    attention_factor: float | None
    same: bool | None
    unverified: str | None = None  # why the engine is not verified
    way_out: dict[str, Any] | None = None
    """Keys that, added to rope_parameters for this engine alone, make it compute the plan."""

    def json(self) -> dict[str, Any]:
        return asdict(self)


def verdicts(plan: RopePlan, architecture: str) -> dict[str, Verdict]:
    """Every engine's row."""
    return {n: engine_verdict(n, engine, plan, architecture) for n, engine in ENGINES.items()}


def engine_verdict(name: str, engine: Engine, plan: RopePlan, architecture: str) -> Verdict:
    p, kind = plan.rope_parameters, plan.rope_parameters["rope_type"]
    if reason := why_unverified(engine, plan, architecture):
        return Verdict(engine.version, None, [], None, None, None, None, unverified=reason)
    if plan.qk_head_dim or plan.layer_type:
        # transformers alone reaches this; its live model was proved after the export
        return Verdict(engine.version, [*p], [], 0.0, 0.0, plan.attention_factor, True)
    long, short = tables(engine, p, plan)
    same = computes_plan(plan, long, short)
    return Verdict(
        version=engine.version,
        reads=[key for key in p if key in (*COMMON_KEYS, *engine.reads[kind])],
        drops=list(dropped_keys(engine, plan, long, short)),
        inv_freq_max_rel=max_relative_difference(long[0], np.array(plan.inv_freq)),
        short_inv_freq_max_rel=max_relative_difference(short[0], short_inv_freq(plan)),
        attention_factor=long[1],
        same=same,
        way_out=None if same else correcting_keys(name, engine, plan),
    )


def verdict_of_gguf(plan: RopePlan, keys: GgufRope) -> Verdict:
    """llama.cpp's row, with the GGUF file of this export."""
    table = formulas.llama_cpp(keys, 2 * len(plan.inv_freq))
    off = max_relative_difference(table[0], np.array(plan.inv_freq))
    reads, same = [*plan.rope_parameters], computes_plan(plan, table, table)
    return Verdict(LLAMA_CPP, reads, [], off, off, table[1], same)


def why_unverified(engine: Engine, plan: RopePlan, architecture: str) -> str | None:
    """Why this engine is not verified; None where its formula is known."""
    if engine.architectures is None:
        return None
    if architecture not in engine.architectures:
        return f"its code for the architecture {architecture} was not read"
    if plan.layer_type or plan.qk_head_dim:
        return "its code for several tables or decoupled heads was not read"
    if plan.rope_parameters.get("partial_rotary_factor", 1) != 1:
        return "its code for heads that are rotated in part was not read"
    if plan.rope_parameters["rope_type"] not in engine.reads:
        return f"its code for rope_type {plan.rope_parameters['rope_type']} was not read"
    return None


def tables(engine: Engine, p: Parameters, plan: RopePlan) -> tuple[Table, Table]:
    """The engine's tables for a text that fills the new window and for one in the original."""
    dim = 2 * len(plan.inv_freq)
    lengths = (plan.max_position_embeddings, max(1, plan.original_max_position_embeddings // 2))
    long, short = (engine.compute(p, dim, plan.config_window, length) for length in lengths)
    return long, short


def short_inv_freq(plan: RopePlan) -> np.ndarray:
    """The plan's frequencies for a text inside the original window, (d/2,)."""
    return np.array(plan.inv_freq if plan.short_inv_freq is None else plan.short_inv_freq)


def max_relative_difference(theirs: np.ndarray, ours: np.ndarray) -> float:
    """The largest of all frequencies, (d/2,) each; 0 for a difference by rounding."""
    difference = float(np.max(np.abs(theirs - ours) / ours))
    return difference if difference > RTOL else 0.0


def computes_plan(plan: RopePlan, long: Table, short: Table) -> bool:
    """Whether an engine's two tables are the plan's, up to rounding."""
    planned = ((long, np.array(plan.inv_freq)), (short, short_inv_freq(plan)))
    return all(
        abs(factor - plan.attention_factor) <= RTOL * plan.attention_factor
        and not max_relative_difference(inv_freq, expected)
        for (inv_freq, factor), expected in planned
    )


def dropped_keys(
    engine: Engine, plan: RopePlan, long: Table, short: Table
) -> Iterator[dict[str, str]]:
    """Each unread key that changes the result, then the differences that no such key explains."""
    p, kind = plan.rope_parameters, plan.rope_parameters["rope_type"]
    factor, table = consequences(plan, long, short)
    explained = set()
    read = {*COMMON_KEYS, *engine.reads[kind]}
    if kind == "longrope":
        read.add("factor")  # engines that do not read it compute window / original window
    for key in (key for key in p if key not in read):
        if consequence := factor if key in FACTOR_KEYS else table:
            explained.add(consequence)
            yield {"key": key, "consequence": consequence}
    if unexplained := [text for text in (table, factor) if text and text not in explained]:
        yield {"key": f"rope_type {kind}", "consequence": "; ".join(unexplained)}


def consequences(plan: RopePlan, long: Table, short: Table) -> tuple[str, str]:
    """What differs in the attention factor, and in the frequencies; "" where nothing does."""
    theirs, ours = long[1], plan.attention_factor
    factor = ""
    if abs(theirs - ours) > RTOL * ours:
        scores = f"attention scores x{(theirs / ours) ** 2:.3f}"
        factor = f"attention factor {theirs:.4f} instead of {ours:.4f}: {scores}"
    at_length = max_relative_difference(long[0], np.array(plan.inv_freq))
    inside = max_relative_difference(short[0], short_inv_freq(plan))
    off = [f"frequencies up to {format_difference(at_length)} off"] if at_length else []
    if inside and inside != at_length:
        where = f"in texts up to {plan.original_max_position_embeddings:,} tokens"
        off.append(f"frequencies up to {format_difference(inside)} off {where}")
    return factor, "; ".join(off)


def format_difference(share: float) -> str:
    """A relative difference as text: 16.0%, or x3.0 from 100% on."""
    return f"{share:.1%}" if share < 1 else f"x{1 + share:.1f}"


def correcting_keys(name: str, engine: Engine, plan: RopePlan) -> Parameters | None:
    """Keys that make this engine compute the plan; None where none do."""
    p = plan.rope_parameters
    added = factor_keys(name, p, plan.attention_factor)
    if added and computes_plan(plan, *tables(engine, {**p, **added}, plan)):
        return added
    return None


def factor_keys(name: str, p: Parameters, factor: float) -> Parameters | None:
    """An engine's own keys for an attention factor; other engines ignore them."""
    if p["rope_type"] == "longrope" and name in ("vLLM", "SGLang"):
        return {"short_mscale": factor, "long_mscale": factor}
    if p["rope_type"] != "yarn" or "mscale" in p:
        return None
    if name == "SGLang":
        return {"attn_factor": factor / formulas.mscale(p["factor"])}
    if name == "mlx-lm":
        # Without mscale_all_dim the other engines ignore mscale.
        return {"mscale": (factor - 1) / (formulas.mscale(p["factor"]) - 1)}
    return None
