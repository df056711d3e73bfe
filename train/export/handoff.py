"""All that is told with an export, and its form for programs: serving.json. Pure."""

from dataclasses import dataclass
from typing import Any

from ropewalk.train.export.compare import Verdict
from ropewalk.train.export.formulas import GgufRope
from ropewalk.train.rope.plan import RopePlan

CONVERTER = "llama.cpp (its converter)"


@dataclass(frozen=True, kw_only=True)
class Handoff:
    """All that the page tells."""

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


def json_of(handoff: Handoff) -> dict[str, Any]:
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
    """What each engine drops or recomputes: every key, what follows in numbers, and the way out. Keys with one consequence together."""
    found = []
    for engine, verdict in verdicts.items():
        by_consequence: dict[str, list[str]] = {}
        for drop in verdict.drops:
            by_consequence.setdefault(drop["consequence"], []).append(drop["key"])
        for consequence, keys in by_consequence.items():
            does = "has its own way with" if keys[0].startswith("rope_type") else "does not read"
            head = f"{engine} {verdict.version} {does} {', '.join(keys)}"
            found.append(f"{head}: {consequence}; {way_out(engine, verdict, gguf)}")
    return found


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


def short_text_of(results: dict[str, Any]) -> dict[str, Any] | None:
    """The part of eval/results.json that the page tells; None without a base to compare with."""
    said = next((v for v in results["verdicts"] if v["name"] == "Inside the original window"), None)
    if said is None:
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
        "verdict": said["value"],
        "rule": said["rule"],
        "holds": said["holds"],
        "window": window,
        "bins": bins,
    }


def interval(found: dict[str, Any]) -> str:
    return f"{found['nll']:.3f} [{found['low']:.3f}, {found['high']:.3f}]"
