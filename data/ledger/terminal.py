"""The ledger as text for a terminal; keys that an older ledger lacks are left out. Pure."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ropewalk.conf.data import DataConfig

Json = Mapping[str, Any]
WIDTH = 110
UNITS = ((1 << 20, "M"), (1 << 10, "K"))


def mixture(data: DataConfig) -> str | None:
    """The mixture that a preset or the settings ask for, in one line; None for the default."""
    length_weights = {
        name: s.length_weights for name, s in data.sources.items() if s.length_weights is not None
    }
    spans = {name: s.span for name, s in data.sources.items() if s.min_len or s.max_len}
    weights = {name: s.weight for name, s in data.sources.items() if s.weight is not None}
    if not (data.mixture or data.length_weights or data.buckets or length_weights or spans):
        return None
    parts = [
        data.mixture or "custom",
        _listed("weights", weights),
        _listed("expected repeats", data.length_weights),
        *(
            _listed(f"expected repeats of {name}", repeats) or f"expected repeats of {name} all 1"
            for name, repeats in length_weights.items()
        ),
        *(f"{name} of {span.low:,} to {span.high - 1:,} tokens" for name, span in spans.items()),
        _listed("shares by length", data.buckets),
        f"a document at most {data.max_epochs} times",
    ]
    return f"mixture: {'; '.join(part for part in parts if part)}"


def _listed(label: str, numbers: Mapping[str, float]) -> str:
    values = ", ".join(f"{key} {number:g}" for key, number in numbers.items())
    return f"{label} {values}" if values else ""


def summary(ledger: Json) -> str:
    """`data/ledger.json` in tables: sources, omissions, lengths, plan, own context, warnings."""
    parts = [
        _sources(ledger["sources"]),
        _left_out(ledger["sources"]),
        _lengths(ledger["sources"]),
        _plan(ledger["plan"]),
        _own_context(ledger),
        _wrapped(f"WARNING {line}" for line in ledger.get("warnings", [])),
    ]
    notes = _wrapped(ledger.get("notes", []))
    return "\n\n".join("\n".join(lines) for lines in [parts[0] + notes, *parts[1:]] if lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Align the first `left` columns to the left and the others to the right."""
    columns = [*zip(head, *rows, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    formats = [f"{'<' if index < left else '>'}{width}" for index, width in enumerate(widths)]
    lines = [map(format, row, formats) for row in (head, *rows)]
    return ["  ".join(line).rstrip() for line in lines]


def _sources(sources: Json) -> list[str]:
    counts = {
        "documents": "documents",
        "tokens": "tokens",
        "taken": "plan_documents",
        "repeated": "repeated",
        "in plan": "tokens_in_plan",
    }
    rows = []
    for name, row in sources.items():
        numbers = [_count(row.get(key)) for key in counts.values()]
        shares = [f"{row['share_in_plan']:.1%}", f"{row['epochs']:.2f}"]
        rows.append([name, row["kind"], *numbers, *shares])
    return _table(["source", "kind", *counts, "share", "epochs"], rows, left=2)


def _left_out(sources: Json) -> list[str]:
    """Tokens of each source that are not in the plan, a column for each reason."""
    left_out = {name: row.get("left_out", {}) for name, row in sources.items()}
    reasons = list(dict.fromkeys(reason for row in left_out.values() for reason in row))
    if not reasons:
        return []
    rows = [
        [name, *(_count(row.get(reason, {}).get("tokens", 0)) for reason in reasons)]
        for name, row in left_out.items()
    ]
    names = [reason.replace("_", " ") for reason in reasons]
    return _table(["tokens not in the plan", *names], rows)


def _lengths(sources: Json) -> list[str]:
    """Shares of a source's tokens by document length, in the store and in the plan."""
    lengths = {name: row["by_length"] for name, row in sources.items() if row.get("by_length")}
    labels = sorted({label for row in lengths.values() for label in row}, key=_upper)
    if not labels:
        return []
    rows = [[name, *(_change(row, label) for label in labels)] for name, row in lengths.items()]
    return _table(["% by length: store>plan", *map(_short, labels)], rows)


def _upper(label: str) -> float:
    return float("inf") if label.startswith(">") else int(label.split("-")[1])


def _short(label: str) -> str:
    """`257-1024` -> `to 1K`, `>1048576` -> `over 1M`."""
    if label.startswith(">"):
        return f"over {_round(int(label[1:]))}"
    return f"to {_round(int(_upper(label)))}"


def _round(tokens: int) -> str:
    """1024 -> `1K`; other numbers are written in full."""
    for unit, name in UNITS:
        if tokens % unit == 0:
            return f"{tokens // unit}{name}"
    return f"{tokens:,}"


def _change(lengths: Json, label: str) -> str:
    if label not in lengths:
        return ""
    store, plan = (
        100 * lengths[label][k] / max(sum(r[k] for r in lengths.values()), 1)
        for k in ("tokens", "plan_tokens")
    )
    return f"{store:.0f}>{plan:.0f}"


def _plan(plan: Json) -> list[str]:
    mask = "on" if plan["document_mask"] else "off"
    lines = [
        f"plan: {plan['sequences']:,} sequences of {plan['seq_len']:,} tokens, "
        f"{plan['fill']:.2%} full: {plan['tokens']:,} tokens, {plan['padding']:,} padding",
        f"packed by {plan['packer']}, document mask {mask}, positions {plan['positions']}",
        f"{plan['pieces']:,} pieces{_per_sequence(plan)}",
    ]
    if boundary_tokens := plan.get("marks"):
        lines.append(f"and {boundary_tokens:,} begin and end tokens of documents")
    if work := plan.get("work"):
        lines.append(
            f"attention work of a sequence: mean {work['share_of_full']:.1%} of one "
            f"document's, variation {work['variation']:.2f}, most "
            f"{work['most_over_mean']:.1f} times the mean"
        )
    if idle := plan.get("idle"):
        lines.append(
            f"{idle['dp_size']} data-parallel groups of an 8B Llama would wait "
            f"{idle['in_order']:.1%} of their time in plan order, {idle['balanced']:.1%} balanced"
        )
    return [lines[0], *(f"  {line}" for line in lines[1:])]


def _per_sequence(plan: Json) -> str:
    counts = plan.get("a_sequence")
    if not counts:
        return ""
    return (
        f", {counts['pieces']:.1f} a sequence (at most {counts['most_pieces']:,.0f}) "
        f"of {counts['sources']:.1f} sources"
    )


def _own_context(ledger: Json) -> list[str]:
    shares = ledger["plan"].get("own_context_share")
    if not shares:
        return []
    sources = {name: row.get("own_context_share") for name, row in ledger["sources"].items()}
    rows = [
        [name, *(f"{row[length]:.1%}" for length in shares)]
        for name, row in {"plan": shares, **sources}.items()
        if row
    ]
    return _table(["own context above", *(_round(int(length)) for length in shares)], rows)


def _wrapped(lines: Iterable[str]) -> list[str]:
    wrapper = textwrap.TextWrapper(
        WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return [part for line in lines for part in wrapper.wrap(line)]


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
