"""SERVING.md, for the person who puts the model behind a server. Pure: values in, Markdown out."""

import json
from pathlib import Path

from ropewalk.train.export import compare
from ropewalk.train.export.compare import Verdict
from ropewalk.train.export.gguf_rope import ARCHITECTURES
from ropewalk.train.export.handoff import Handoff
from ropewalk.train.rope.plan import RopePlan


def document(handoff: Handoff) -> str:
    """The page as Markdown."""
    plan, verdicts = handoff.plan, handoff.verdicts
    parts = [
        f"# Serving {handoff.name}",
        f"{plan.method} x{plan.factor:g}: {plan.original_max_position_embeddings:,} -> "
        f"{plan.max_position_embeddings:,} tokens, attention factor {plan.attention_factor:.4f}, "
        f"plan {plan.hash[:12]}, architecture {handoff.architecture}. Reloaded from `hf/` and "
        "proved against the plan: table, cos and sin, and every layer's queries and keys.",
        *(f"**Warning:** {warning}." for warning in handoff.warnings),
        "## Commands",
        *commands(handoff),
        "## What each engine makes of it",
        table(handoff),
        *(f"{n} is not verified: {v.unverified}." for n, v in verdicts.items() if v.unverified),
        NOTES,
        "## What static scaling costs on short text",
        short_text(handoff),
    ]
    return "\n\n".join(parts) + "\n"


def commands_of(page: Path) -> str:
    """The commands of a written SERVING.md; empty where it has none."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    return text.partition("## Commands\n")[2].partition("\n## ")[0].strip()


NOTES = """\
*Frequencies off* is the largest relative difference of a rotary frequency, for a text that fills
the new window / for one inside the original window; *attention factor* multiplies cos and sin, so
attention scores get its square. The numbers are computed by each engine's own formula, as its
source of that version has it; other versions may differ. Nothing is claimed of an engine that is
not verified."""


def commands(handoff: Handoff) -> list[str]:
    """The command line of each server, each after its sentence."""
    length = handoff.plan.max_position_embeddings
    legacy = "lacks" if handoff.old_keys_missing else "has"
    trust = " --trust-remote-code" if handoff.own_code else ""
    return [
        "vLLM (the overrides repeat `hf/config.json`, and take precedence):",
        shell(
            f"vllm serve hf{trust} --max-model-len {length} \\\n"
            f"  --hf-overrides '{overrides(handoff, 'vLLM')}'"
        ),
        "SGLang:",
        shell(
            f"python -m sglang.launch_server --model-path hf{trust} --context-length {length} \\\n"
            f"  --json-model-override-args '{overrides(handoff, 'SGLang')}'"
        ),
        *llama_cpp(handoff),
        f"mlx-lm (its Llama reads the older keys, which `hf/config.json` {legacy}):",
        shell("mlx_lm.server --model hf"),
    ]


def shell(text: str) -> str:
    return f"```sh\n{text}\n```"


def overrides(handoff: Handoff, engine: str) -> str:
    """JSON for the command line: the plan's parameters and the engine's correcting keys."""
    plan, verdict = handoff.plan, handoff.verdicts[engine]
    rope = plan.by_layer_type({**plan.rope_parameters, **(verdict.way_out or {})})
    return json.dumps({"rope_parameters": rope, "max_position_embeddings": plan.config_window})


def llama_cpp(handoff: Handoff) -> list[str]:
    """llama.cpp with the GGUF file, and with flags where they express the plan."""
    length = handoff.plan.max_position_embeddings
    parts = [f"llama.cpp: no GGUF file was written, because {handoff.gguf.missing}."]
    if handoff.gguf.file:
        parts = [
            "llama.cpp (no scaling flags: the file holds the scaling):",
            shell(f"llama-server -m {handoff.gguf.file} -c {length}"),
            "Its default key/value cache is f16 with flash attention where it can: logits then "
            "differ by some 1e-2 from Hugging Face's in fp32. To compare, add "
            "`--cache-type-k f32 --cache-type-v f32 --flash-attn off`.",
        ]
    flags = scaling_flags(handoff.plan) if handoff.architecture in ARCHITECTURES else None
    if flags is not None:
        parts += [
            "From a GGUF file of the same weights without scaling keys, the same with:",
            shell(f"llama-server -m unscaled.gguf -c {length} {flags}"),
        ]
    return parts


def scaling_flags(plan: RopePlan) -> str | None:
    """llama.cpp's flags for exactly this plan; None where no flags express it."""
    p, original = plan.rope_parameters, plan.original_max_position_embeddings
    if plan.layer_type or plan.qk_head_dim or p.get("partial_rotary_factor", 1.0) != 1.0:
        return None  # llama.cpp's use of the flags was not verified here
    theta = f"--rope-freq-base {p['rope_theta']!r}" if p["rope_theta"] != plan.rope_theta else ""
    if p["rope_type"] == "linear":
        return f"--rope-scaling linear --rope-scale {p['factor']:g} {theta}".rstrip()
    if p["rope_type"] == "default" and theta:
        return theta
    if p["rope_type"] != "yarn" or not {"attention_factor", "mscale", "truncate"}.isdisjoint(p):
        return None
    betas = [f"--yarn-{k.replace('_', '-')} {p[k]:g}" for k in ("beta_fast", "beta_slow") if k in p]
    yarn = f"--rope-scaling yarn --rope-scale {p['factor']:g} --yarn-orig-ctx {original}"
    return " ".join([yarn, *betas, theta]).rstrip()


def table(handoff: Handoff) -> str:
    """A row for each engine: which keys it reads, and how far its table is off."""
    keys = [key for key in handoff.plan.rope_parameters if key not in ("rope_type", "rope_theta")]
    head = ["engine", "version", *keys, "frequencies off", "attention factor", "same"]
    rows = [row(name, verdict, keys) for name, verdict in handoff.verdicts.items()]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def row(name: str, verdict: Verdict, keys: list[str]) -> list[str]:
    if verdict.same is None or verdict.inv_freq_max_rel is None or verdict.attention_factor is None:
        return [name, verdict.version, *("not verified" for _ in range(len(keys) + 3))]
    reads = ["read" if key in (verdict.reads or []) else "not read" for key in keys]
    off = f"{percent(verdict.inv_freq_max_rel)} / {percent(verdict.short_inv_freq_max_rel or 0.0)}"
    same = "yes" if verdict.same else "**no**"
    return [name, verdict.version, *reads, off, f"{verdict.attention_factor:.4f}", same]


def percent(share: float) -> str:
    return compare.format_difference(share) if share else "0"


def short_text(handoff: Handoff) -> str:
    """The losses that eval measured inside the original window, extended against base."""
    cost = handoff.short_text
    if cost is None:
        return "Not measured: run `ropewalk eval` on this run, then `ropewalk export` again."
    rows = [f"| {b['from']:,}-{b['to']:,} | {b['base']} | {b['extended']} |" for b in cost["bins"]]
    table = ["| position | base [95%] | extended [95%] |", "| --- | --- | --- |", *rows]
    return (
        f"{cost['difference']} per token, extended against base, over the {cost['window']:,} "
        f"tokens of the original window ({cost['rule']}: {cost['verdict']}). A static scaling "
        "applies at every length: if most texts are short, serve the base for those.\n\n"
        + "\n".join(table)
    )
