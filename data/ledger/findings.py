"""What a reader of the ledger must be told: notes on each source, and warnings where a fact passes its limit. Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ropewalk.data.sources import FILE_PREFIX

Json = Mapping[str, Any]
NOTHING_LOST = ("empty", "no tokens")


def with_findings(ledger: Json) -> dict[str, Any]:
    """The ledger with its notes and warnings, made anew from all it holds by then."""
    return {**ledger, "notes": notes(ledger), "warnings": warnings(ledger)}


def notes(ledger: Json) -> list[str]:
    """A line for each fact that is there and is news: of each source, then of all."""
    rows = ledger["sources"].items()
    found = [
        (f"{name}: ", say(row[key]))
        for name, row in rows
        for key, say in OF_SOURCES.items()
        if key in row
    ]
    found += [("", say(ledger[key])) for key, say in OF_ALL.items() if key in ledger]
    return [at + line for at, line in found if line]


def _refusals(reasons: Mapping[str, int]) -> str:
    return (
        f"refused {', '.join(f'{count:,} {reason}' for reason, count in reasons.items())}"
        if reasons
        else ""
    )


def _most_taken(times: int) -> str:
    return f"a document was taken {times:,} times" if times > 1 else ""


def _duplicates(found: Mapping[str, int | None]) -> str:
    """Near ones are null where nobody looked."""
    kinds = [
        (kind, found.get(f"{kind}_documents"), found.get(f"{kind}_tokens"))
        for kind in ("exact", "near")
    ]
    counts = [
        f"{count:,} {kind} ({tokens or 0:,} tokens)" for kind, count, tokens in kinds if count
    ]
    unseen = "; near ones not looked for" if found.get("near_documents", 0) is None else ""
    return f"duplicates of earlier documents {' and '.join(counts)}{unseen}" if counts else ""


def _context_only(targets: int) -> str:
    return f"context only: its {targets:,} labels count in no loss" if targets else ""


def _buckets(found: Mapping[str, Mapping[str, int]]) -> str:
    """A bucket of lengths in which the source has nothing is filled from the others."""
    others = ", ".join(text for text, row in found.items() if row["taken"])
    short = [
        f"{row['asked']:,} of {text}"
        for text, row in found.items()
        if row["asked"] and not row["taken"]
    ]
    return (
        f"tokens of lengths that it has no document of were taken from {others}: {', '.join(short)}"
        if short
        else ""
    )


def _contamination(found: Json) -> str:
    if found["action"] == "off":
        return "held-out text in training text: not looked for"
    held, training = found["heldout"], found["training"]
    worst = "".join(
        f", the worst {w['document']} of {w['source']} {w['share']:.0%}" for w in held["worst"][:1]
    )
    return (
        f"held-out text in training text: {len(held['dirty']):,} of {held['documents']:,} held-out documents have more than "
        f"{found['share']:.0%} of their stretches of {found['ngram']} tokens there{worst}; {training['contaminated']:,} training "
        f"documents ({training['contaminated_tokens']:,} tokens) have more than that of theirs in held-out text"
    )


# fact, which may be absent -> its line; empty where it is no news
OF_SOURCES: Mapping[str, Callable[[Any], str]] = {
    "refused": _refusals,
    "most_taken": _most_taken,
    "duplicates": _duplicates,
    "buckets": _buckets,
    "context_only": _context_only,
}
OF_ALL: Mapping[str, Callable[[Any], str]] = {"contamination": _contamination}


@dataclass(frozen=True)
class Rule:
    """Lines of the ledger's facts that pass `limit`; `reason` is why it lies there."""

    limit: float
    reason: str
    find: Callable[[Json, float], Iterator[str]]


def warnings(ledger: Json) -> list[str]:
    """Every line of every rule: *key is VALUE; what follows; way out*."""
    return [line for rule in RULES for line in rule.find(ledger, rule.limit)]


def _never_far(ledger: Json, limit: float) -> Iterator[str]:
    plan = ledger["plan"]
    far = plan["seq_len"] // 4
    share = plan["own_context_share"].get(str(far))
    if share is not None and share < limit:
        who = "no token of the plan has" if share == 0 else f"{share:.2%} of the plan's tokens have"
        yield (
            f"data.seq_len is {plan['seq_len']}; {who} more than {far:,} tokens of its own document before it (the most is "
            f"{plan['longest_own_context']:,}); the model is trained at the length but {'never' if share == 0 else 'hardly'} at "
            "the distance; add longer documents, give those there are more weight, or lower data.seq_len"
        )


def _worn_out(ledger: Json, limit: float) -> Iterator[str]:
    for name, row in ledger["sources"].items():
        if row["epochs"] > limit:
            yield (
                f"data.sources.{name} is read {row['epochs']:.1f} times over; past {limit:g} repeats teach ever less "
                "(arXiv 2305.16264); lower its weight or data.total_tokens, or add text"
            )


def _one_document(ledger: Json, limit: float) -> Iterator[str]:
    whole = max(ledger["plan"]["tokens"], 1)
    for name, row in ledger["sources"].items():
        largest = row.get("largest")
        if largest and largest["tokens"] / whole > limit:
            yield (
                f"document {largest['document']} of source {name} gives {largest['tokens'] / whole:.0%} of the plan's tokens; "
                f"above {limit:.0%} a run learns that one text; add others, or remove it"
            )


def _few_documents(ledger: Json, limit: float) -> Iterator[str]:
    for name, row in ledger["sources"].items():
        if (
            1 < row.get("half_from", 0) < limit and row["share_in_plan"] >= 0.1
        ):  # one alone: `_one_document` says so
            yield (
                f"data.sources.{name} gives {row['share_in_plan']:.0%} of the plan, half of that from {row['half_from']} documents; "
                f"below {limit:g} its share is those documents', not the source's; add documents or lower its weight"
            )


def _little_held_out(ledger: Json, limit: float) -> Iterator[str]:
    held = ledger["plan"]["heldout_long"]
    if held < limit:
        yield (
            f"data.heldout_share leaves {held} document{'' if held == 1 else 's'} of {ledger['plan']['seq_len']:,} tokens or more for "
            f"eval; verdicts at that length need {limit:g}; raise data.heldout_share, add long documents or lower eval.length"
        )


def _lost(ledger: Json, limit: float) -> Iterator[str]:
    policy = ledger["plan"].get("overlong", "split")
    for name, row in (
        ledger["sources"].items() if policy != "split" else ()
    ):  # else only a budget's last document is cut
        lost, had = row["dropped"] + row["cut"], row["dropped"] + row["cut"] + row["tokens_in_plan"]
        if had and lost / had > limit:
            yield (
                f"data.overlong is {policy}; of source {name} {lost / had:.1%} of the tokens are lost ({row['dropped']:,} dropped, "
                f"{row['cut']:,} cut), all of long documents, which a long context learns from; set split"
            )


def _lost_files(ledger: Json, limit: float) -> Iterator[str]:
    for name, row in ledger["sources"].items():
        files = {
            reason: count
            for reason, count in (row.get("refused") or {}).items()
            if reason.startswith(FILE_PREFIX)
        }
        if sum(files.values()) > limit:
            yield (
                f"data.sources.{name} has files that are lost, whole or from the damage on ({_refusals(files)}); nobody knows how "
                "many documents that is; mend them, or leave them out by pattern"
            )


def _refused(ledger: Json, limit: float) -> Iterator[str]:
    for name, row in ledger["sources"].items():
        reasons = {
            reason: count
            for reason, count in (row.get("refused") or {}).items()
            if reason not in NOTHING_LOST
        }
        refused = sum(
            count for reason, count in reasons.items() if not reason.startswith(FILE_PREFIX)
        )
        whole = refused + row["documents"]
        if (
            row["kind"] != "tree" and refused / max(whole, 1) > limit
        ):  # of a tree files are refused, and not counted else
            yield (
                f"data.sources.{name} has {refused:,} documents of {whole:,} that cannot be read; above {limit:.0%} that is no "
                "accident; mend the files or the source's settings, by the reasons above"
            )


def _padded(ledger: Json, limit: float) -> Iterator[str]:
    plan = ledger["plan"]
    if plan["sequences"] and plan["fill"] < limit:
        way_out = "" if plan["packer"] == "window_fill" else "set data.packer=window_fill, or "
        yield (
            f"data.packer is {plan['packer']}; the plan is {plan['fill']:.1%} full and the rest of the work is on padding; below "
            f"{limit:.0%} it pays to pack; {way_out}lower data.seq_len"
        )


RULES = (
    Rule(0.01, "of a billion tokens, less than ten million are then targets at a quarter of the length", _never_far),
    Rule(4, "up to four epochs repeats are worth nearly what new text is: Muennighoff et al. 2023", _worn_out),
    Rule(0.1, "one of ten tokens from one text is its style and its facts, not a domain's", _one_document),
    Rule(5, "half of a source from a handful of texts is no sample of it", _few_documents),
    Rule(4, "eval's verdicts need four documents of the length it measures", _little_held_out),
    Rule(0.01, "packers of the field lose 3 to 22%, all of it long documents; nothing need be lost", _lost),
    Rule(0, "one file of rows may be a hundredth of a source or all of it", _lost_files),
    Rule(0.01, "one file of a hundred is an accident, more are a wrong column, encoding or format", _refused),
    Rule(0.95, "packing fills 99.9%; a twentieth of the hours is worth a setting", _padded),
)  # fmt: skip
