"""The five questions about the judged column, answered from results.json alone. Pure.

1 does the loss hold past the window?  2 is far text used?  3 is it fetched from anywhere?
4 can it do more than fetch?           5 what did it cost?
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ropewalk.eval.measure.gates import Verdict
from ropewalk.eval.measure.statistics import Estimate

Json = Mapping[str, Any]
QUESTIONS = (1, 2, 3, 4, 5)
INSIDE = 5
"""The question that needs nothing past the window."""
SHARE = 0.85
"""Of the own score at the base's window (NoLiMa's rule)."""
ANSWERS = {"pass": "yes", "fail": "no", "undecided": "undecided"}
TASKS = {
    1: ("context_gain",),
    2: ("swapped_gain",),
    3: ("json_kv with effective_length", "passkey"),
    4: ("ruler with effective_length",),
    5: ("window_loss", "short_context"),
}
"""What must be in `eval.tasks` for an answer."""


def verdicts(rows: Json) -> list[Verdict]:
    """Of the questions 2 to 4, whose measures do not judge themselves. `rows`: of the judged
    column, by task."""
    parts = [_far_text(rows), _relative(rows, "json_kv", 3), _relative(rows, "ruler", 4)]
    return [verdict for verdict in parts if verdict is not None]


def _far_text(rows: Json) -> Verdict | None:
    row = (rows.get("swapped_gain") or [{}])[-1]
    if row.get("gain") is None:
        return None
    gain = Estimate(row["gain"], row["low"], row["high"], row["n"])
    rule = "loss with another document's far text minus the true text's: above 0"
    return Verdict("Far text swapped", gain, 0.0, rule, row["unit"], "nats", 2, "above")


def _relative(rows: Json, source: str, question: int) -> Verdict | None:
    """The score at the longest length over that at the base's window."""
    row = next((r for r in rows.get("effective_length") or [] if r["source"] == source), None)
    if row is None or row.get("ratio") is None:
        return None
    ratio = Estimate(row["ratio"], row["ratio_low"], row["ratio_high"], row["n"])
    name = f"{source} at {row['longest']:,}, of the own score at the base's window"
    return Verdict(
        name, ratio, SHARE, f"at least {SHARE:.0%}", row["unit"], "share", question, "above"
    )


def answers(
    gates: Sequence[Json],
    rows: Json,
    not_judged: str | None = None,
    inside_only: str | None = None,
) -> list[dict[str, Any]]:
    """One for each question: yes, no, undecided or not measured, with the numbers in words.

    Of several gates of a question the worst answers. `rows`: of the judged column, by task.
    `not_judged`: why there are no gates. `inside_only`: why only the last question is asked.
    """
    of_questions = [_answer(number, gates, rows) for number in QUESTIONS]
    for answer in of_questions:
        if answer["question"] != INSIDE:
            answer["reason"] = inside_only or answer["reason"]
        answer["reason"] = not_judged or answer["reason"]
    return of_questions


def _answer(number: int, gates: Sequence[Json], rows: Json) -> dict[str, Any]:
    own = [gate for gate in gates if gate["question"] == number]
    # a pass key that is found says little where no value of an object is
    floor = _floor("json_kv", rows) if number == 3 else None
    verdicts = {ANSWERS[gate["verdict"]] for gate in own if floor is None}
    answer = next((a for a in ("no", "undecided", "yes") if a in verdicts), "not measured")
    lines = [f"{gate['name']}: {gate['text']} (n {gate['n']:,})" for gate in own]
    lines += [line for line in [_worst_depth(rows) if number == 3 else None] if line]
    lines += [line for line in [_copies(rows) if number == 2 else None] if line]
    reason = _reason(number, rows) if answer == "not measured" else None
    return {"question": number, "answer": answer, "text": "; ".join(lines), "reason": reason}


def _reason(number: int, rows: Json) -> str:
    """Why there is no answer: a floor where a measure names one, else what was not asked."""
    if reason := _floor({3: "json_kv", 4: "ruler"}.get(number), rows):
        return reason
    swapped = (rows.get("swapped_gain") or [{}])[-1]
    if number == 2 and swapped.get("reason"):
        return str(swapped["reason"])
    return f"eval.tasks needs {' or '.join(TASKS[number])}"


def _floor(source: str | None, rows: Json) -> str | None:
    """Why a task's score cannot be compared with the one at the base's window."""
    for row in rows.get("effective_length") or []:
        if row["source"] == source and row.get("reason"):
            return str(row["reason"])
    return None


def _worst_depth(rows: Json) -> str | None:
    """The depth with the fewest values found, at the longest length."""
    cells = [row for row in rows.get("json_kv") or [] if row.get("accuracy") is not None]
    cells = [row for row in cells if row.get("depth") is not None]
    if not cells:
        return None
    longest = max(row["length"] for row in cells)
    worst = min((row for row in cells if row["length"] == longest), key=lambda r: r["accuracy"])
    place = f"depth {worst['depth']:.0%}: {worst['accuracy']:.0%} (n {worst['n']:,})"
    return f"worst at {longest:,} tokens, {place}"


def _copies(rows: Json) -> str | None:
    """Loss of copies from beyond the window, beside near ones."""
    means = {}
    for kind in ("far", "near"):
        bins = [r for r in rows.get("far_copy") or [] if r["kind"] == kind]
        bins = [r for r in bins if r.get("nll") is not None]
        tokens = sum(row["tokens"] for row in bins)
        if not tokens:
            return None
        means[kind] = sum(row["nll"] * row["tokens"] for row in bins) / tokens
    return f"copies from far back {means['far']:.3f} nats, from near {means['near']:.3f}"
