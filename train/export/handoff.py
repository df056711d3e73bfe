"""What an export reports: warnings, ways out, the cost on short text, and serving.json. Pure."""

from dataclasses import dataclass
from typing import Any

from ropewalk.train.export.compare import Verdict
from ropewalk.train.export.formulas import GgufRope
from ropewalk.train.rope.plan import RopePlan

CONVERTER = "llama.cpp (its converter)"


@dataclass(frozen=True, kw_only=True)
class Handoff:
    """The content of SERVING.md and serving.json."""

    name: str
    architecture: str
    plan: RopePlan
    window: int  # max_position_embeddings of config.json
    verdicts: dict[str, Verdict]
    old_keys_missing: str | None  # why config.json has no rope_scaling
    gguf_file: str | None
    gguf: GgufRope | None
    gguf_missing: str | None  # why there is no GGUF file
    short_text: dict[str, Any] | None  # from eval/results.json
    warnings: list[str]


def serving_json(handoff: Handoff) -> dict[str, Any]:
    """serving.json, schema 1."""
    plan = handoff.plan
    return {
        "schema": 1,
        "plan": plan.hash,
        "architecture": handoff.architecture,
        "rope_parameters": plan.rope_parameters,
        "attention_factor": plan.attention_factor,
        "max_position_embeddings": handoff.window,
        "served_length": plan.max_position_embeddings,
        "engines": {name: verdict.json() for name, verdict in handoff.verdicts.items()},
        "gguf": {
            "file": handoff.gguf_file,
            "missing": handoff.gguf_missing,
            "keys": gguf_keys(handoff.gguf),
        },
        "old_keys_missing": handoff.old_keys_missing,
        "short_text": handoff.short_text,
        "warnings": handoff.warnings,
    }


def gguf_keys(keys: GgufRope | None) -> dict[str, Any] | None:
    if keys is None:
        return None
    return {
        **vars(keys),
        "rope_freqs": None if keys.rope_freqs is None else keys.rope_freqs.tolist(),
    }


def warnings(verdicts: dict[str, Verdict], gguf: str | None) -> list[str]:
    """A line for each consequence of the keys that an engine drops, with numbers and a way out."""
    lines = []
    for engine, verdict in verdicts.items():
        by_consequence: dict[str, list[str]] = {}
        for drop in verdict.drops:
            by_consequence.setdefault(drop["consequence"], []).append(drop["key"])
        for consequence, keys in by_consequence.items():
            verb = "has its own way with" if keys[0].startswith("rope_type") else "does not read"
            head = f"{engine} {verdict.version} {verb} {', '.join(keys)}"
            lines.append(f"{head}: {consequence}; {way_out(engine, verdict, gguf)}")
    return lines


def way_out(engine: str, verdict: Verdict, gguf: str | None) -> str:
    if engine == CONVERTER and gguf is not None:
        return f"serve {gguf}, which says it exactly"
    if verdict.way_out is None:
        return "serve it with an engine that reads it"
    keys = ", ".join(f'"{key}": {value!r}' for key, value in verdict.way_out.items())
    where = (
        "to rope_scaling in hf/config.json"
        if engine == "mlx-lm"
        else "to rope_parameters, as the command in SERVING.md does"
    )
    return f"add {keys} {where}"


def short_text_cost(results: dict[str, Any]) -> dict[str, Any] | None:
    """Extended against base inside the original window, by eval/results.json; None without base."""
    verdicts = (v for v in results["verdicts"] if v["name"] == "Inside the original window")
    verdict = next(verdicts, None)
    if verdict is None:
        return None
    models, window = results["models"], results["base_window"]
    pairs = zip(
        models["base"]["nll_by_position"], models["extended"]["nll_by_position"], strict=True
    )
    bins = [
        {"from": b["from"], "to": b["to"], "base": interval(b), "extended": interval(e)}
        for b, e in pairs
        if b["to"] <= window
    ]
    return {
        "verdict": verdict["value"],
        "rule": verdict["rule"],
        "holds": verdict["holds"],
        "window": window,
        "bins": bins,
    }


def interval(row: dict[str, Any]) -> str:
    """`NLL [LOW, HIGH]` of a bin."""
    return f"{row['nll']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
