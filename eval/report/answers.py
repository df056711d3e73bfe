"""The five questions at the top of the page, with the answers of results.json."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ropewalk.eval.report import formats

Json = Mapping[str, Any]

QUESTIONS = (
    "Does the loss hold past the window?",
    "Is far text used?",
    "Is it fetched from anywhere?",
    "Can it do more than fetch?",
    "What did it cost: is short text as good as before?",
)
NOT_MEASURED = "not measured"
ANSWERS = {"pass": "yes", "fail": "no", "undecided": "undecided"}
"""Of a gate's verdict; the last question is answered by whether the cost is within tolerance."""
MARKS = {"yes": "✓", "no": "✗", "undecided": "?", NOT_MEASURED: "–"}


@dataclass(frozen=True)
class Evidence:
    """One measured value behind an answer."""

    name: str
    answer: str
    value: str
    n: str
    """With its unit."""
    rule: str
    needed_n: int | None
    """Units that would decide, of an undecided one."""


@dataclass(frozen=True)
class Answer:
    question: str
    answer: str
    """yes, no, undecided or not measured."""
    evidence: Sequence[Evidence]
    beside: str = ""
    """What else the results say to it, such as the worst depth."""
    reason: str | None = None
    """Why it was not measured."""

    @property
    def mark(self) -> str:
        return MARKS.get(self.answer, "")


def answers(results: Json) -> list[Answer]:
    """All five: as results.json answers them, or as its gates do; else not measured."""
    return [_answer(results, number) for number in range(1, len(QUESTIONS) + 1)]


def _answer(results: Json, number: int) -> Answer:
    given: Json = next(_of(results.get("answers"), number), {})
    gates = [*_of(results.get("gates"), number)]
    evidence = [_evidence(row) for row in gates]
    own = given.get("answer") or given.get("verdict")
    answer = ANSWERS.get(str(own), str(own)) if own else _joint([e.answer for e in evidence])
    if not evidence and given and answer != NOT_MEASURED:
        evidence = [_evidence(given)]
    beside = _beside(str(given.get("text") or ""), gates)
    return Answer(QUESTIONS[number - 1], answer, evidence, beside, given.get("reason"))


def _beside(text: str, gates: Sequence[Json]) -> str:
    """The text of an answer without its gates, which are shown one by one."""
    for gate in gates:
        own = f"{gate.get('name')}: {gate.get('text')} (n {formats.integer(gate.get('n'))})"
        text = text.removeprefix(own).removeprefix("; ")
    return text[:1].upper() + text[1:]


def _of(rows: Iterable[Json] | None, number: int) -> Iterator[Json]:
    """The rows of one question."""
    return iter([row for row in rows or () if row.get("question") == number])


def _joint(answers: Sequence[str]) -> str:
    """Of several gates the worst."""
    return next((a for a in ("no", "undecided", "yes") if a in answers), NOT_MEASURED)


def _evidence(row: Json) -> Evidence:
    verdict = str(row.get("verdict") or row.get("answer") or NOT_MEASURED)
    n, unit = row.get("n"), row.get("unit") or "unit"
    return Evidence(
        name=str(row.get("name") or ""),
        answer=ANSWERS.get(verdict, verdict),
        value=_value(row),
        n="" if n is None else f"{formats.integer(n)} {unit}{'' if n == 1 else 's'}",
        rule=str(row.get("rule") or ""),
        needed_n=row.get("needed_n"),
    )


def _value(row: Json) -> str:
    """The value with its interval: the gate's own text, or the numbers."""
    if row.get("text"):
        return re.sub(r"(?<![\w.])-(?=\d)", "\u2212", str(row["text"]))
    if row.get("value") is None:
        return formats.DASH
    low, high = row.get("low"), row.get("high")
    interval = "" if low is None else f" [{formats.general(low)}, {formats.general(high)}]"
    return formats.as_text(row["value"]) + interval
