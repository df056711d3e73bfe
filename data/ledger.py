"""The ledger as a person reads it in a terminal. Pure."""

from typing import Any


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
