"""The text of a model's card: rope, data, licences and what it takes to repeat the run. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ropewalk.train.rope.plan import RopePlan

Json = Mapping[str, Any]
WORDS = {"pass": "yes", "fail": "**no**", "undecided": "undecided"}


@dataclass(frozen=True)
class Origin:
    """What a model comes from, as far as its run recorded it."""

    base: str | None = None
    """Public name of the base; None for a folder, whose path stays on this machine."""
    revision: str | None = None
    license: str | None = None
    license_source: str = ""
    """Who says so."""
    license_files: Sequence[str] = ()
    datasets: Sequence[str] = ()
    """Data sets of the hub."""
    ledger: Json = field(default_factory=dict)
    record: Json = field(default_factory=dict)
    """The run's manifest."""
    commands: str = ""
    """Of SERVING.md."""


def sections(plan: RopePlan, results: Json | None, table: str, origin: Origin) -> Iterator[str]:
    """The parts of the card after its introduction, each a heading with its text."""
    yield "## Rope"
    yield rope(plan)
    if origin.commands:
        yield f"### Serving\n\n{origin.commands}"
    yield "## Evaluation"
    yield table or "Not measured."
    if lines := list(verdicts(results or {})):
        yield "### Verdicts\n\n" + "\n".join(lines)
    if origin.ledger:
        yield f"## Training data\n\n{data(origin.ledger)}"
    yield f"## Licence\n\n{licences(origin)}"
    if origin.record:
        yield f"## Reproduce\n\n{reproduction(origin.record)}"


def rope(plan: RopePlan) -> str:
    rows = {
        "method": plan.method,
        "factor": f"{plan.factor:g}",
        "window of the base": f"{plan.original_max_position_embeddings:,} tokens",
        "window": f"{plan.max_position_embeddings:,} tokens",
        "rope_theta": f"{plan.rope_theta:,.6g}",
        "attention factor": f"{plan.attention_factor:.6g}",
        "rope_parameters": f"`{dict(plan.rope_parameters)}`",
        "plan": f"`{plan.hash}`",
    }
    return _table(("", ""), rows.items())


def verdicts(results: Json) -> Iterator[str]:
    """A line for each gate: its question's answer, value with interval, n and rule."""
    gates = results.get("gates") or []
    if gates:
        yield "| gate | passed | value | n | rule |\n| --- | --- | --- | --- | --- |"
    for gate in gates:
        n = f"{gate['n']:,} ({gate['unit']})" if gate.get("n") is not None else ""
        cells = (gate["name"], WORDS[gate["verdict"]], gate["text"], n, gate["rule"])
        yield f"| {' | '.join(map(_cell, cells))} |"


def data(ledger: Json) -> str:
    """Sources and the plan, as the ledger counts them."""
    head = ("source", "kind", "documents", "tokens", "share of the plan", "left out")
    rows = [
        (
            name,
            source.get("kind", ""),
            _count(source.get("documents")),
            _count(source.get("tokens")),
            f"{100 * source['share_in_plan']:.1f}%" if "share_in_plan" in source else "",
            _count(source.get("dropped")),
        )
        for name, source in (ledger.get("sources") or {}).items()
    ]
    plan = ledger.get("plan") or {}
    text = _table(head, rows)
    if {"sequences", "seq_len", "tokens"} <= plan.keys():
        text += (
            f"\n\n{plan['sequences']:,} sequences of {plan['seq_len']:,} tokens, "
            f"{plan['tokens']:,} tokens in all."
        )
    return text


def licences(origin: Origin) -> str:
    """The chain: base, then data."""
    base = origin.base or "the base, a folder"
    known = f"{origin.license} ({origin.license_source})" if origin.license else "not recorded"
    files = ", ".join(f"`{name}`" for name in origin.license_files)
    lines = [
        f"- Base ({base}): {known}." + (f" Its files lie here: {files}." if files else ""),
        "- Training data: "
        + (
            "the data sets above have licences of their own on their pages."
            if origin.datasets
            else "its licences are not recorded; who publishes this model has to look at them."
        ),
    ]
    return "\n".join(lines)


def reproduction(record: Json) -> str:
    """Command, versions and hashes of the run's manifest."""
    environment = (record.get("environments") or {}).get(record.get("environment")) or {}
    code, results = environment.get("code") or {}, record.get("results") or {}
    torch, hardware = environment.get("torch") or {}, environment.get("hardware") or {}
    weights = (results.get("train") or {}).get("files") or {}
    rows = {
        "command": f"`{record.get('command', '')}`",
        "seed": (record.get("seeds") or {}).get("seed"),
        "ropewalk": _code_text(code),
        "torch": " ".join(filter(None, (torch.get("version"), torch.get("git", "")[:12]))),
        "hardware": ", ".join(hardware.get("gpus") or [str(hardware.get("processor", ""))]),
        "plan of the data": (results.get("data") or {}).get("plan"),
        **{name: sha for name, sha in weights.items() if name.endswith(".safetensors")},
    }
    table = _table(
        ("", ""), ((key, value) for key, value in rows.items() if value not in (None, ""))
    )
    return (
        f"{table}\n\n`ropewalk reproduce ropewalk-manifest.json` runs it again and says whether it "
        "comes out the same."
    )


def _code_text(code: Json) -> str:
    if not code:
        return ""
    commit = code.get("commit")
    changed = len(code.get("changed") or [])
    known = f"commit {commit}" if commit else code.get("reason", "")
    return f"{code.get('ropewalk')}, {known}" + (f", {changed} files changed" if changed else "")


def _table(head: Sequence[str], rows: Any) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _cell(value: object) -> str:
    """On one line; a bar would end the cell."""
    return " ".join(str("" if value is None else value).split()).replace("|", "\\|")


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else ""
