"""The ledger as a person reads it in a terminal. Pure."""

from collections.abc import Mapping
from typing import Any

from ropewalk.conf.data import DataConfig


def mixture(data: DataConfig) -> str | None:
    """What a preset or the settings ask of the mixture by length, in one line; None when nothing."""
    own = {name: s.length_weights for name, s in data.sources.items() if s.length_weights is not None}
    spans = {name: s.span for name, s in data.sources.items() if s.min_len or s.max_len}
    weights = {name: s.weight for name, s in data.sources.items() if s.weight is not None}
    if not (data.mixture or data.length_weights or data.buckets or own or spans):
        return None
    parts = [
        data.mixture or "custom",
        _listed("weights", weights),
        _listed("expected repeats", data.length_weights),
        *(
            _listed(f"expected repeats of {name}", found) or f"expected repeats of {name} all 1"
            for name, found in own.items()
        ),
        *(f"{name} of {span.low:,} to {span.high - 1:,} tokens" for name, span in spans.items()),
        _listed("shares by length", data.buckets),
        f"a document at most {data.max_epochs} times",
    ]
    return f"mixture: {'; '.join(part for part in parts if part)}"


def _listed(what: str, numbers: Mapping[str, float]) -> str:
    return f"{what} {', '.join(f'{key} {number:g}' for key, number in numbers.items())}" if numbers else ""


def summary(ledger: dict[str, Any]) -> str:
    """Sources, plan and own context of `data/ledger.json` in a few lines."""
    lines = [
        f"{'source':<16} {'kind':<8} {'documents':>10} {'tokens':>14} {'held out':>12} {'in plan':>14} {'share':>7} {'epochs':>7} {'cut':>8}"
    ]
    for name, row in ledger["sources"].items():
        lines.append(
            f"{name:<16} {row['kind']:<8} {row['documents']:>10,} {row['tokens']:>14,} {row['heldout_tokens']:>12,} "
            f"{row['tokens_in_plan']:>14,} {row['share_in_plan']:>7.1%} {row['epochs']:>7.2f} {row['cut']:>8,}"
        )
        if row["dropped"]:
            lines.append(
                f"  dropped {row['dropped_documents']:,} documents longer than a piece: {row['dropped']:,} tokens"
            )
        lines += _cleaned(row)
        if row["outside_length_documents"]:
            lines.append(
                f"  left out {row['outside_length_documents']:,} documents outside min_len and max_len: {row['outside_length']:,} tokens"
            )
        lines += _filled(row.get("buckets", {}))
        lines += [f"  refused {count:,}: {reason}" for reason, count in row["refused"].items()]
    plan = ledger["plan"]
    lines.append(
        f"plan: {plan['sequences']:,} sequences of {plan['seq_len']:,} tokens, {plan['pieces']:,} pieces, {plan['tokens']:,} tokens, "
        f"{plan['padding']:,} padding ({plan['fill']:.2%} full), packed by {plan['packer']}, document mask {'on' if plan['document_mask'] else 'off'}, "
        f"positions {plan['positions']}"
    )
    if marks := plan.get("marks"):
        lines.append(f"  beside them {marks:,} tokens before and after documents")
    if plan["own_context_share"]:
        shares = ", ".join(f"{int(length):,}: {share:.1%}" for length, share in plan["own_context_share"].items())
        lines.append(f"tokens with more than L tokens of their own document before them: {shares}")
    if any(row.get("duplicates", {}).get("near_documents", 0) is None for row in ledger["sources"].values()):
        lines.append("near duplicates: not looked for")
    if "contamination" in ledger:
        lines.append(f"contamination: {_contamination(ledger['contamination'])}")
    return "\n".join(lines)


def _cleaned(row: dict[str, Any]) -> list[str]:
    """What was found to repeat an earlier document, and what was removed and why."""
    found, lines = row.get("duplicates", {}), []
    for kind in ("exact", "near"):
        if count := found.get(f"{kind}_documents"):
            lines.append(f"  {kind} duplicates of earlier documents {count:,}: {found[f'{kind}_tokens']:,} tokens")
    removed = row.get("removed", {}).items()
    return lines + [
        f"  removed {k['documents']:,} documents ({reason}): {k['tokens']:,} tokens" for reason, k in removed
    ]


def _contamination(found: dict[str, Any]) -> str:
    if found["action"] == "off":
        return "not looked for"
    held, training = found["heldout"], found["training"]
    worst = "".join(f", the worst {w['document']} of {w['source']} {w['share']:.0%}" for w in held["worst"][:1])
    return (
        f"{len(held['dirty']):,} of {held['documents']:,} held-out documents have more than {found['share']:.0%} of their stretches "
        f"of {found['ngram']} tokens in training text{worst}; {training['contaminated']:,} training documents "
        f"({training['contaminated_tokens']:,} tokens) have more than that in held-out text"
    )


def _filled(buckets: dict[str, dict[str, int]]) -> list[str]:
    """A line a bucket in which the source has no document."""
    others = ", ".join(text for text, row in buckets.items() if row["taken"])
    return [
        f"  no document of {text} tokens: the {row['asked']:,} asked of them were taken from {others}"
        for text, row in buckets.items()
        if row["asked"] and not row["taken"]
    ]
