"""What each engine makes of a plan: the table it computes against the plan's own, and what the difference comes from."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ropewalk.train.export import formulas
from ropewalk.train.export.engines import ENGINES, LLAMA_CPP, Engine
from ropewalk.train.export.formulas import GgufRope, Parameters, Table
from ropewalk.train.rope.plan import RopePlan

RTOL = 1e-6  # rounding of a form's numbers, not another table
SHAPE = ("rope_type", "rope_theta", "partial_rotary_factor")  # what every engine reads
OF_THE_FACTOR = (
    "attention_factor",
    "mscale",
    "mscale_all_dim",
)  # keys that change the attention factor alone


@dataclass(frozen=True)
class Verdict:
    """One engine's row. None: not verified for this architecture or form."""

    version: str
    reads: list[str] | None
    drops: list[dict[str, str]]  # key, consequence
    inv_freq_max_rel: float | None  # for a text that fills the new window
    short_inv_freq_max_rel: float | None  # for a text inside the original window
    attention_factor: float | None
    same: bool | None
    unverified: str | None = None  # why nothing is said
    way_out: dict[str, Any] | None = (
        None  # keys that, added to rope_parameters for this engine alone, mend it
    )

    def json(self) -> dict[str, Any]:
        return asdict(self)


def verdicts(plan: RopePlan, architecture: str, window: int) -> dict[str, Verdict]:
    """Every engine's row. `window`: max_position_embeddings as config.json has it, tokens."""
    return {
        name: verdict(name, engine, plan, architecture, window) for name, engine in ENGINES.items()
    }


def verdict(name: str, engine: Engine, plan: RopePlan, architecture: str, window: int) -> Verdict:
    p, kind = plan.rope_parameters, plan.rope_parameters["rope_type"]
    if reason := why_unverified(engine, plan, architecture):
        return Verdict(engine.version, None, [], None, None, None, None, unverified=reason)
    if (
        plan.qk_head_dim or plan.layer_type
    ):  # transformers alone: the live model was proved after export
        return Verdict(engine.version, [*p], [], 0.0, 0.0, plan.attention_factor, True)
    long, short = tables(engine, p, plan, window)
    return Verdict(
        version=engine.version,
        reads=[key for key in p if key in (*SHAPE, *engine.reads[kind])],
        drops=list(drops(engine, plan, long, short)),
        inv_freq_max_rel=apart(long[0], np.array(plan.inv_freq)),
        short_inv_freq_max_rel=apart(short[0], short_table(plan)),
        attention_factor=long[1],
        same=same(plan, long, short),
        way_out=None if same(plan, long, short) else mended(name, engine, plan, window),
    )


def verdict_of_gguf(plan: RopePlan, keys: GgufRope) -> Verdict:
    """llama.cpp's row, with the GGUF file of this export."""
    table = formulas.llama_cpp(keys, 2 * len(plan.inv_freq))
    off = apart(table[0], np.array(plan.inv_freq))
    return Verdict(
        LLAMA_CPP, [*plan.rope_parameters], [], off, off, table[1], same(plan, table, table)
    )


def why_unverified(engine: Engine, plan: RopePlan, architecture: str) -> str | None:
    """Why nothing is said of this engine; None where its formula is known."""
    if engine.architectures is None:
        return None
    if architecture not in engine.architectures:
        return f"its code for the architecture {architecture} was not read"
    if plan.layer_type or plan.qk_head_dim:
        return "its code for several tables or decoupled heads was not read"
    if plan.rope_parameters.get("partial_rotary_factor", 1) != 1:
        return "its code for heads that are rotated in part was not read"
    if plan.rope_parameters["rope_type"] not in engine.reads:
        return f"what it does with rope_type {plan.rope_parameters['rope_type']} was not seen"
    return None


def tables(engine: Engine, p: Parameters, plan: RopePlan, window: int) -> tuple[Table, Table]:
    """At the new window, and inside the original one."""
    dim = 2 * len(plan.inv_freq)
    lengths = (plan.max_position_embeddings, max(1, plan.original_max_position_embeddings // 2))
    long, short = (engine.compute(p, dim, window, length) for length in lengths)
    return long, short


def short_table(plan: RopePlan) -> np.ndarray:
    return np.array(plan.inv_freq if plan.short_inv_freq is None else plan.short_inv_freq)


def apart(theirs: np.ndarray, ours: np.ndarray) -> float:
    """Largest relative difference of a frequency; rounding counts as none."""
    found = float(np.max(np.abs(theirs - ours) / ours))
    return found if found > RTOL else 0.0


def same(plan: RopePlan, long: Table, short: Table) -> bool:
    factors = all(
        abs(m - plan.attention_factor) <= RTOL * plan.attention_factor for _, m in (long, short)
    )
    return (
        factors
        and not apart(long[0], np.array(plan.inv_freq))
        and not apart(short[0], short_table(plan))
    )


def drops(engine: Engine, plan: RopePlan, long: Table, short: Table) -> Iterator[dict[str, str]]:
    """Each key that is not read and without which something else is computed; then what no such key explains."""
    p, kind = plan.rope_parameters, plan.rope_parameters["rope_type"]
    factor, table = consequences(plan, long, short)
    told = set()
    for key in (key for key in p if key not in (*SHAPE, *engine.reads[kind])):
        if kind == "longrope" and key == "factor":
            continue  # where not read, the window over the original one stands for it
        said = factor if key in OF_THE_FACTOR else table
        if said:
            told.add(said)
            yield {"key": key, "consequence": said}
    if rest := [said for said in (table, factor) if said and said not in told]:
        yield {"key": f"rope_type {kind}", "consequence": "; ".join(rest)}


def consequences(plan: RopePlan, long: Table, short: Table) -> tuple[str, str]:
    """In numbers: of the attention factor, and of the frequencies; empty where there is none."""
    theirs, ours, factor = long[1], plan.attention_factor, ""
    if abs(theirs - ours) > RTOL * ours:
        factor = f"attention factor {theirs:.4f} instead of {ours:.4f}: attention scores x{(theirs / ours) ** 2:.3f}"
    at_length = apart(long[0], np.array(plan.inv_freq))
    inside = apart(short[0], short_table(plan))
    table = f"frequencies up to {off(at_length)} off" if at_length else ""
    if inside and inside != at_length:
        where = f"in texts up to {plan.original_max_position_embeddings:,} tokens"
        table = "; ".join(filter(None, (table, f"frequencies up to {off(inside)} off {where}")))
    return factor, table


def off(share: float) -> str:
    """A relative difference for a reader: 16.0%, or x3.0 for one above itself."""
    return f"{share:.1%}" if share < 1 else f"x{1 + share:.1f}"


def mended(name: str, engine: Engine, plan: RopePlan, window: int) -> Parameters | None:
    """Keys that make this engine compute the plan; None where there are none."""
    found = own_words(name, plan.rope_parameters, plan.attention_factor)
    if found is None or not same(
        plan, *tables(engine, {**plan.rope_parameters, **found}, plan, window)
    ):
        return None
    return found


def own_words(name: str, p: Parameters, factor: float) -> Parameters | None:
    """An engine's own keys for an attention factor; the other engines ignore them."""
    if p["rope_type"] == "longrope" and name in ("vLLM", "SGLang"):
        return {"short_mscale": factor, "long_mscale": factor}
    if p["rope_type"] != "yarn" or "mscale" in p:
        return None
    if name == "SGLang":
        return {"attn_factor": factor / formulas.mscale(p["factor"])}
    if (
        name == "mlx-lm"
    ):  # it counts there alone; transformers, vLLM and SGLang want mscale_all_dim beside it
        return {"mscale": (factor - 1) / (formulas.mscale(p["factor"]) - 1)}
    return None
