"""Effective length: the longest context with a score that is still near that of the base window.

No text is computed for it: the answers are those of JSON key-value, and of RULER where measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ropewalk.eval.measure import effective_length as lengths
from ropewalk.eval.measure.effective_length import EffectiveLength, Score
from ropewalk.eval.report.sentences import list_by_model, sentence
from ropewalk.eval.tasks import haystacks, json_kv
from ropewalk.eval.tasks.haystacks import Row
from ropewalk.eval.tasks.task import EvalSuite, Measured, ModelRows, Rows, Sample, Verdict

RELATIVE = f"at least {lengths.SHARE:.0%} of the own score at the base window"


class EffectiveLengthTask:
    name = "effective_length"
    title = "Effective length"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        """Those of its sources. Raises: DataError."""
        return json_kv.built(suite).samples

    def rows(self, measured: Measured) -> Rows:
        """One for each source and rule, the headline first. `value`: tokens, or null."""
        suite = measured.suite
        scores = key_value_scores(haystacks.only(measured, json_kv.built(suite).samples))
        found = lengths.relative(scores, suite.base_window, suite.seed)
        if reason := json_kv.built(suite).reasons.get(suite.base_window):
            found = lengths.not_measurable(reason)
        return [
            _row(suite, "json_kv", RELATIVE, json_kv.protocol(suite), "haystack", found, scores)
        ]

    def verdicts(self, rows: ModelRows, window: int, length: int) -> list[Verdict]:
        """None: it is reported, with its interval."""
        return []

    def figure(self, rows: ModelRows, window: int | None) -> str | None:
        """None: the page shows a table."""
        return None

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        """Each column's length by the headline rule."""
        first = {name: part[0] for name, part in rows.items() if part}
        values = list_by_model(first, lambda row: row.get("text") or None)
        if not values:
            return None
        source = next(iter(first.values()))["source"]
        return sentence([f"the effective length by {source} ({RELATIVE}) is {values}"])


def key_value_scores(measured: Measured) -> dict[int, Score]:
    """By length, of haystacks with their questions."""
    asked: dict[int, list[tuple[str, float]]] = {}
    for length in sorted({sample.facts["length"] for sample in measured.samples}):
        part = haystacks.answers(measured.select(length=length))
        asked[length] = [(answer.unit, float(answer.correct)) for answer in part]
    return {length: [_part(pairs)] for length, pairs in asked.items()}


def _part(pairs: Sequence[tuple[str, float]]) -> lengths.Part:
    return lengths.part_of([unit for unit, _ in pairs], [score for _, score in pairs])


def _row(
    suite: EvalSuite,
    source: str,
    rule: str,
    protocol: str,
    unit: str,
    found: EffectiveLength,
    scores: Mapping[int, Score],
) -> Row:
    facts: dict[str, Any] = {"source": source, "rule": rule, **asdict(found)}
    facts["text"] = lengths.text(found, min(scores, default=suite.base_window))
    facts["longest"] = max(scores, default=None)
    return {**facts, "unit": unit, "protocol": protocol, "seed": suite.seed}
