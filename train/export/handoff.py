"""What an export reports: warnings, ways out, the cost on short text, and serving.json. Pure."""

from dataclasses import dataclass
from typing import Any

from ropewalk.train.export.compare import Verdict
from ropewalk.train.export.formulas import GgufRope
from ropewalk.train.rope.plan import RopePlan

OWN_CODE = "own code"  # after the name of an architecture that hf/ brings the code of
OF_RUN = ("base", "extended")
CONVERTER = "llama.cpp (its converter)"


@dataclass(frozen=True)
class GgufExport:
    """The GGUF file of an export, or why there is none."""

    file: str | None = None
    keys: GgufRope | None = None
    missing: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Handoff:
    """The content of SERVING.md and serving.json."""

    name: str
    architecture: str
    plan: RopePlan
    verdicts: dict[str, Verdict]
    old_keys_missing: str | None  # why config.json has no rope_scaling
    gguf: GgufExport
    short_text: dict[str, Any] | None  # from eval/results.json

    @property
    def own_code(self) -> bool:
        """Whether hf/ brings the code of its architecture."""
        return self.architecture.endswith(f"({OWN_CODE})")

    @property
    def warnings(self) -> list[str]:
        """What the files lack, and a line for each consequence of keys that an engine drops."""
        lines = [*self.gguf.warnings]
        if self.own_code:
            lines.append(
                "hf/ is loaded by code of its own, which lies there: it needs trust_remote_code"
            )
        if self.old_keys_missing is not None:
            lines.append(
                "hf/config.json has rope_parameters only, no rope_theta and rope_scaling: "
                f"{self.old_keys_missing}"
            )
        for engine, verdict in self.verdicts.items():
            by_consequence: dict[str, list[str]] = {}
            for drop in verdict.drops:
                by_consequence.setdefault(drop["consequence"], []).append(drop["key"])
            for consequence, keys in by_consequence.items():
                computed = keys[0].startswith("rope_type")
                verb = "has its own way with" if computed else "does not read"
                head = f"{engine} {verdict.version} {verb} {', '.join(keys)}"
                lines.append(f"{head}: {consequence}; {way_out(engine, verdict, self.gguf.file)}")
        return lines

    def json(self) -> dict[str, Any]:
        """serving.json, schema 1."""
        gguf = {"file": self.gguf.file, "missing": self.gguf.missing}
        return {
            "schema": 1,
            "plan": self.plan.hash,
            "architecture": self.architecture,
            "rope_parameters": self.plan.rope_parameters,
            "attention_factor": self.plan.attention_factor,
            "max_position_embeddings": self.plan.config_window,
            "served_length": self.plan.max_position_embeddings,
            "engines": {name: verdict.json() for name, verdict in self.verdicts.items()},
            "gguf": {**gguf, "keys": gguf_keys(self.gguf.keys)},
            "old_keys_missing": self.old_keys_missing,
            "short_text": self.short_text,
            "warnings": self.warnings,
        }


def gguf_keys(keys: GgufRope | None) -> dict[str, Any] | None:
    if keys is None:
        return None
    divisors = None if keys.rope_freqs is None else keys.rope_freqs.tolist()
    return {**vars(keys), "rope_freqs": divisors}


def way_out(engine: str, verdict: Verdict, gguf: str | None) -> str:
    if engine == CONVERTER and gguf is not None:
        return f"serve {gguf}, which holds the plan exactly"
    if verdict.way_out is None:
        return "serve it with an engine that reads it"
    keys = ", ".join(f'"{key}": {value!r}' for key, value in verdict.way_out.items())
    if engine == "mlx-lm":
        return f"add {keys} to rope_scaling in hf/config.json"
    return f"add {keys} to rope_parameters, as the command in SERVING.md does"


def short_text_cost(results: dict[str, Any]) -> dict[str, Any] | None:
    """Extended against base inside the original window, by eval/results.json; None where these
    were not compared."""
    if (results.get("reference", "base"), results.get("judged", "extended")) != OF_RUN:
        return None
    gates = {gate["name"]: gate for gate in results["gates"]}
    gate = gates.get("Inside the original window")
    if gate is None:
        return None
    window = results["base_window"]
    base, extended = (results["models"][m]["nll_by_position"] for m in ("base", "extended"))
    bins = [
        {"from": b["from"], "to": b["to"], "base": interval(b), "extended": interval(e)}
        for b, e in zip(base, extended, strict=True)
        if b["to"] <= window
    ]
    rest = {"rule": gate["rule"], "verdict": gate["verdict"], "window": window, "bins": bins}
    return {"difference": gate["text"], **rest}


def interval(row: dict[str, Any]) -> str:
    """`NLL [LOW, HIGH]` of a bin."""
    if row["low"] is None:
        return f"{row['nll']:.3f} [no interval of one document]"
    return f"{row['nll']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
