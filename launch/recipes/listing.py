"""`ropewalk recipes`: the rows of table.json for a terminal or a program; one recipe's card."""

import json
from collections.abc import Iterator, Mapping, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from ropewalk.launch.recipes import table

if TYPE_CHECKING:
    from ropewalk.conf.published import PublishedResult
    from ropewalk.conf.recipe_card import RecipeCard

COLUMNS = ("name", "base", "window", "method", "tokens", "phases", "GPUs", "GPU-hours", "licence")
FOOT = (
    "tokens: of all phases. GPU-hours: by ropewalk plan on the GPUs beside them, the likely\n"
    "figure of a range. ropewalk recipes NAME: origins, departures, results; --twin FOLDER:\n"
    "a small copy to run here. ropewalk run recipe=NAME."
)
WIDTH = 100
VERDICTS = {"fits": "fits", "too_close": "too close to say", "does_not_fit": "does not fit"}


def rows() -> list[dict[str, Any]]:
    """A row a recipe, by name."""
    return [dict(row) for row in table.read().values()]


def as_text(listed: Sequence[Mapping[str, Any]]) -> str:
    cells = [COLUMNS, *map(_cells, listed)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
    return "\n".join([*lines, "", FOOT])


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        row["name"],
        row["base"],
        window(row),
        row["method"],
        billions(row["tokens"]),
        str(row["phases"]),
        f"{row['gpus']} x {row['hardware']}",
        "-" if row["gpu_hours"]["likely"] is None else f"{row['gpu_hours']['likely']:,.0f}",
        row["licence"],
    )


def window(row: Mapping[str, Any]) -> str:
    """`8K -> 512K`, and the length of the sequences where it is another."""
    original, new = row["window"]
    text = f"{short(original)} -> {short(new)}"
    return text if row["seq_len"] == new else f"{text} ({short(row['seq_len'])})"


def short(length: int) -> str:
    """`64K` of 65,536; other lengths in full."""
    return f"{length // 1024}K" if length % 1024 == 0 else f"{length:,}"


def billions(tokens: int) -> str:
    return f"{tokens / 1e9:.3g}B"


def card_as_text(name: str, card: "RecipeCard", row: Mapping[str, Any] | None) -> str:
    """The card; `row`: of table.json, with the plan."""
    lines = [f"{name}: {card.title}", *_wrapped(", ".join(card.references))]
    lines += ["", "base", *_wrapped(_base(card))]
    lines += ["text", *_wrapped(f"published: {card.text.published}")]
    lines += _wrapped(f"here: {card.text.here}") + _wrapped(f"licence: {card.text.licence}")
    lines += ["numbers, and where each is from"]
    width = max(map(len, card.numbers))
    lines += [
        f"  {key.ljust(width)}  {line}" if not at else f"  {' ' * width}  {line}"
        for key, origin in card.numbers.items()
        for at, line in enumerate(wrap(origin, max(40, WIDTH - width - 4)))
    ]
    for title, items in (
        ("what departs from the publication", card.departures),
        ("where paper, code and release disagree", card.contradictions),
        ("what Ropewalk cannot do yet", card.gaps),
        ("warnings that are meant", [f"... {f.text} ...: {f.why}" for f in card.findings]),
        ("published results", list(_results(card))),
    ):
        if items:
            lines += [title, *(line for item in items for line in _item(item))]
    return "\n".join([*lines, *_cost(card, row)])


def _base(card: "RecipeCard") -> str:
    base = card.base
    gate = "its host asks for accepted terms" if base.gated else "open"
    parts = [f"licence {base.licence}; {gate}"]
    parts += [f"an open copy: model.path={base.mirror}"] if base.mirror else []
    parts += [f"to start small: model.path={base.starter}"] if base.starter else []
    return "; ".join(parts)


def _results(card: "RecipeCard") -> Iterator[str]:
    if card.anchor_rows:
        yield f"rows {', '.join(map(str, card.anchor_rows))} of eval/anchors.yaml"
    for result in card.anchors:
        yield _result(result)


def _result(result: "PublishedResult") -> str:
    pairs = zip(result.at, result.values, strict=True)
    values = ", ".join(f"{at:,}: {v}" if isinstance(at, int) else f"{at}: {v}" for at, v in pairs)
    notes = [result.source, *(["read in others' notes"] if result.second_hand else [])]
    notes += [result.note] if result.note else []
    head = f"{result.model}, {result.metric}, {result.protocol}, by {result.by}"
    return f"{head}: {values} ({'; '.join(notes)})"


def _cost(card: "RecipeCard", row: Mapping[str, Any] | None) -> Iterator[str]:
    authors = card.authors
    spent = "GPU-hours not published"
    if authors.gpu_hours is not None:
        spent = f"{authors.gpu_hours:,.0f} GPU-hours"
    facts = [authors.hardware or "GPUs not published", spent, *filter(None, [authors.note])]
    yield "cost"
    yield from _wrapped(f"the authors: {'; '.join(facts)}")
    if row is None:
        return
    for phase in row["plan"]:
        hours = phase["gpu_hours"]
        yield (
            f"  by plan, {phase['phase']}: {phase['gpus']} x {card.planned.hardware}, "
            f"{memory(phase)}, {hours['low']:,.0f} to {hours['high']:,.0f} GPU-hours"
        )


def memory(phase: Mapping[str, Any]) -> str:
    """Of one GPU, by plan; times need no trace, memory does."""
    if phase["verdict"] is None:
        return f"not traced yet, {phase['usable_gib']} GiB are there"
    verdict = VERDICTS[phase["verdict"]]
    return f"{phase['peak_gib']} of {phase['usable_gib']} GiB, {verdict}"


def _wrapped(text: str) -> list[str]:
    return wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ")


def _item(text: str) -> list[str]:
    return wrap(text, WIDTH, initial_indent="  - ", subsequent_indent="    ")


def card_as_json(name: str, card: "RecipeCard", row: Mapping[str, Any] | None) -> str:
    from dataclasses import asdict

    return json.dumps([{"name": name, **asdict(card), "row": row}], indent=1)
