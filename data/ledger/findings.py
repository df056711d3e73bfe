"""Notes on each source of the ledger, and warnings about values beyond their limit. Pure."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ropewalk.data.sources import FILE_PREFIX, OUTSIDE_WHERE

Json = Mapping[str, Any]
NOTHING_LOST = ("empty", "no tokens", OUTSIDE_WHERE)


def with_findings(ledger: Json) -> dict[str, Any]:
    """The ledger with `notes` and `warnings`, computed again from its other entries."""
    return {**ledger, "notes": notes(ledger), "warnings": warnings(ledger)}


def notes(ledger: Json) -> list[str]:
    """Lines on each source, then on contamination."""
    lines = [
        (f"{name}: ", describe(row[key]))
        for name, row in ledger["sources"].items()
        for key, describe in SOURCE_NOTES.items()
        if key in row
    ]
    if "contamination" in ledger:
        lines.append(("", _contamination(ledger["contamination"])))
    return [prefix + line for prefix, line in lines if line]


def _refusals(reasons: Mapping[str, int]) -> str:
    counts = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    return f"refused {counts}" if counts else ""


def _given_ids(counts: Mapping[str, int]) -> str:
    special = counts["special"]
    inside = f"; {special:,} special tokens inside documents" if special else ""
    return (
        f"tokens as given: of {counts['checked']:,} that were decoded and encoded again, "
        f"{counts['agree'] / max(counts['checked'], 1):.1%} are the same{inside}"
    )


def _max_repeats(times: int) -> str:
    return f"a document was taken {times:,} times" if times > 1 else ""


def _duplicates(duplicates: Mapping[str, int | None]) -> str:
    """The counts of near duplicates are None when they were not searched."""
    counts = [
        f"{duplicates[f'{kind}_documents']:,} {kind} ({duplicates[f'{kind}_tokens']:,} tokens)"
        for kind in ("exact", "near")
        if duplicates[f"{kind}_documents"]
    ]
    not_searched = "" if duplicates["near_documents"] is not None else "; near ones not searched"
    return f"duplicates of earlier documents {' and '.join(counts)}{not_searched}" if counts else ""


def _context_only(targets: int) -> str:
    return f"context only: its {targets:,} labels count in no loss" if targets else ""


def _buckets(buckets: Mapping[str, Mapping[str, int]]) -> str:
    """Report the buckets without documents, which the other buckets fill."""
    others = ", ".join(text for text, row in buckets.items() if row["taken"])
    empty = {text: row["asked"] for text, row in buckets.items() if not row["taken"]}
    short = ", ".join(f"{tokens:,} of {text}" for text, tokens in empty.items() if tokens)
    return f"tokens of lengths without documents were taken from {others}: {short}" if short else ""


def _contamination(section: Json) -> str:
    if section["action"] == "off":
        return "held-out text in training text: not searched"
    heldout, training = section["heldout"], section["training"]
    worst = ""
    if heldout["worst"]:
        first = heldout["worst"][0]
        worst = f", the worst {first['document']} of {first['source']} {first['share']:.0%}"
    return (
        f"held-out text in training text: {len(heldout['dirty']):,} of {heldout['documents']:,} "
        f"held-out documents share more than {section['share']:.0%} of their stretches of "
        f"{section['ngram']} tokens{worst}; {training['contaminated']:,} training documents "
        f"({training['contaminated_tokens']:,} tokens) share as much with held-out text"
    )


# key of a source's row, which may be absent -> its line; an empty line is left out
SOURCE_NOTES: Mapping[str, Callable[[Any], str]] = {
    "refused": _refusals,
    "given_ids": _given_ids,
    "most_taken": _max_repeats,
    "duplicates": _duplicates,
    "buckets": _buckets,
    "context_only": _context_only,
}


@dataclass(frozen=True)
class Rule:
    """Yields a warning for each value beyond `limit`; `reason` justifies the limit."""

    limit: float
    reason: str
    find: Callable[[Json, float], Iterator[str]]


def warnings(ledger: Json) -> list[str]:
    """Every line of every rule: *key is VALUE; what follows; way out*."""
    return [line for rule in RULES for line in rule.find(ledger, rule.limit)]


def _short_contexts(ledger: Json, limit: float) -> Iterator[str]:
    plan = ledger["plan"]
    distance = plan["seq_len"] // 4
    share = plan["own_context_share"].get(str(distance))
    if share is not None and share < limit:
        subject, frequency = f"{share:.2%} of the plan's tokens have", "hardly"
        if share == 0:
            subject, frequency = "no token of the plan has", "never"
        yield (
            f"data.seq_len is {plan['seq_len']}; {subject} more than {distance:,} tokens of its "
            f"own document before it (the most is {plan['longest_own_context']:,}); the model is "
            f"trained at the length but {frequency} at the distance; add longer documents, give "
            "the present ones more weight, or lower data.seq_len"
        )


def _many_epochs(ledger: Json, limit: float) -> Iterator[str]:
    for name, row in ledger["sources"].items():
        if row["epochs"] > limit:
            yield (
                f"data.sources.{name} is read {row['epochs']:.1f} times over; past {limit:g} "
                "repeats teach ever less (arXiv 2305.16264); lower its weight or "
                "data.total_tokens, or add text"
            )


def _one_document(ledger: Json, limit: float) -> Iterator[str]:
    total = max(ledger["plan"]["tokens"], 1)
    for name, row in ledger["sources"].items():
        largest = row.get("largest")
        if largest and largest["tokens"] / total > limit:
            yield (
                f"document {largest['document']} of source {name} gives "
                f"{largest['tokens'] / total:.0%} of the plan's tokens; above {limit:.0%} a run "
                "learns that one text; add others, or remove it"
            )


def _few_documents(ledger: Json, limit: float) -> Iterator[str]:
    for name, row in ledger["sources"].items():
        # `_one_document` reports a single document
        if 1 < row.get("half_from", 0) < limit and row["share_in_plan"] >= 0.1:
            yield (
                f"data.sources.{name} gives {row['share_in_plan']:.0%} of the plan, half of that "
                f"from {row['half_from']} documents; below {limit:g} its share is those "
                "documents', not the source's; add documents or lower its weight"
            )


def _little_held_out(ledger: Json, limit: float) -> Iterator[str]:
    count = ledger["plan"]["heldout_long"]
    if count < limit:
        yield (
            f"data.heldout_share leaves {count} document{'' if count == 1 else 's'} of "
            f"{ledger['plan']['seq_len']:,} tokens or more for eval; verdicts at that length need "
            f"{limit:g}; raise data.heldout_share, add long documents or lower eval.length"
        )


def _lost(ledger: Json, limit: float) -> Iterator[str]:
    policy = ledger["plan"].get("overlong", "split")
    if policy == "split":  # it only cuts the last document of a budget
        return
    for name, row in ledger["sources"].items():
        lost = row["dropped"] + row["cut"]
        total = lost + row["tokens_in_plan"]
        if total and lost / total > limit:
            yield (
                f"data.overlong is {policy}; of source {name} {lost / total:.1%} of the tokens are "
                f"lost ({row['dropped']:,} dropped, {row['cut']:,} cut), all of long documents, "
                "which a long context learns from; set split"
            )


def _lost_files(ledger: Json, limit: float) -> Iterator[str]:
    for name, row in ledger["sources"].items():
        files = _refused_by_reason(row, files=True)
        if sum(files.values()) > limit:
            yield (
                f"data.sources.{name} has files that are lost, whole or from the damage on "
                f"({_refusals(files)}); how many documents were in them is unknown; mend them, "
                "or leave them out by pattern"
            )


def _refused_by_reason(row: Json, files: bool) -> dict[str, int]:
    """Reason -> how many files of rows, or documents, a source refused."""
    reasons = (row.get("refused") or {}).items()
    return {reason: count for reason, count in reasons if reason.startswith(FILE_PREFIX) == files}


def _refused(ledger: Json, limit: float) -> Iterator[str]:
    for name, row in ledger["sources"].items():
        documents = _refused_by_reason(row, files=False).items()
        refused = sum(count for reason, count in documents if reason not in NOTHING_LOST)
        total = refused + row["documents"]
        # the refused files of a tree are not documents
        if row["kind"] != "tree" and refused / max(total, 1) > limit:
            yield (
                f"data.sources.{name} has {refused:,} documents of {total:,} that cannot be "
                f"read; above {limit:.0%} that is no accident; mend the files or the source's "
                "settings, by the reasons above"
            )


def _padded(ledger: Json, limit: float) -> Iterator[str]:
    plan = ledger["plan"]
    if plan["sequences"] and plan["fill"] < limit:
        way_out = "" if plan["packer"] == "window_fill" else "set data.packer=window_fill, or "
        yield (
            f"data.packer is {plan['packer']}; the plan is {plan['fill']:.1%} full and the rest of "
            f"the work is on padding; below {limit:.0%} packing saves time; {way_out}"
            "lower data.seq_len"
        )


RULES = (
    Rule(0.01, "below 1%, hardly any target lies beyond a quarter of the length", _short_contexts),
    Rule(4, "four epochs are worth nearly as much as new text: arXiv 2305.16264", _many_epochs),
    Rule(0.1, "a tenth from one text teaches that text's style, not a domain", _one_document),
    Rule(5, "half of a source from a handful of texts is no sample of the source", _few_documents),
    Rule(4, "eval's verdicts need four documents of the measured length", _little_held_out),
    Rule(0.01, "other packers lose 3 to 22%, all of long documents; split loses none", _lost),
    Rule(0, "one file of rows may be a hundredth of a source or all of it", _lost_files),
    Rule(0.01, "more than 1% points to a wrong column, encoding or format", _refused),
    Rule(0.95, "packing fills 99.9%; a twentieth of the hours is worth a setting", _padded),
)
