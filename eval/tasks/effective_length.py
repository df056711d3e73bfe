"""Effective length: the longest context with a score that is still near that of the base window.

No text is computed for it: the answers are those of JSON key-value, and of RULER where measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ropewalk.eval.measure import effective_length as lengths
from ropewalk.eval.measure.effective_length import EffectiveLength, Part, Score
from ropewalk.eval.report.sentences import list_by_model, sentence
from ropewalk.eval.ruler import scoring
from ropewalk.eval.tasks import haystacks, json_kv
from ropewalk.eval.tasks.haystacks import Row
from ropewalk.eval.tasks.ruler import Ruler
from ropewalk.eval.tasks.task import (
    EvalSuite,
    Measured,
    ModelRows,
    Rows,
    Sample,
    Task,
    samples_of,
)

RELATIVE = f"at least {lengths.SHARE:.0%} of the own score at the base window"
KEY_VALUE, RULER = "json_kv", Ruler.name


class EffectiveLengthTask(Task):
    """No verdict: it is reported, with its interval."""

    name = "effective_length"
    title = "Effective length"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        """Those of its sources. Raises: DataError."""
        return [*json_kv.built(suite).samples, *_of_ruler(suite)]

    def rows(self, measured: Measured) -> Rows:
        """One for each source and rule, the headline first. `value`: tokens, or null; `ratio`: the
        score at the longest length over that at the base window."""
        suite = measured.suite
        rows = [_key_value_row(suite, measured)]
        if of_ruler := _of_ruler(suite):
            rows += _ruler_rows(suite, ruler_scores(haystacks.only(measured, of_ruler)))
        return rows

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        """Each column's length by the headline rule."""
        first = {name: part[0] for name, part in rows.items() if part}
        values = list_by_model(first, lambda row: row.get("text") or None)
        if not values:
            return None
        source = next(iter(first.values()))["source"]
        return sentence([f"the effective length by {source} ({RELATIVE}) is {values}"])


def key_value_scores(measured: Measured) -> dict[int, Score]:
    """By length: of haystacks, each with its questions."""
    scores: dict[int, Score] = {}
    for length in sorted({sample.facts["length"] for sample in measured.samples}):
        answers = [*haystacks.answers(measured.select(length=length))]
        units, right = [answer.unit for answer in answers], [float(a.correct) for a in answers]
        scores[length] = [lengths.part_of(units, right)]
    return scores


def ruler_scores(measured: Measured) -> dict[int, Score]:
    """By length: a part for each configuration that has samples at every length."""
    cells: dict[int, dict[str, list[tuple[str, float]]]] = {}
    for sample, result in zip(measured.samples, measured.results, strict=True):
        score = scoring.score_of(sample, scoring.reply_text(measured.suite, result))
        by_name = cells.setdefault(sample.facts["length"], {})
        by_name.setdefault(sample.facts["configuration"], []).append((sample.unit, score))
    common = set.intersection(*map(set, cells.values())) if cells else set()
    return {
        length: [_part(by_name[name]) for name in sorted(common)]
        for length, by_name in sorted(cells.items())
        if common
    }


def _part(pairs: Sequence[tuple[str, float]]) -> Part:
    return lengths.part_of([unit for unit, _ in pairs], [score for _, score in pairs])


def _of_ruler(suite: EvalSuite) -> Sequence[Sample]:
    return samples_of(Ruler(), suite) if RULER in suite.config.tasks else []


def _key_value_row(suite: EvalSuite, measured: Measured) -> Row:
    own = json_kv.built(suite)
    scores = key_value_scores(haystacks.only(measured, own.samples))
    effective = lengths.relative(scores, suite.base_window, suite.seed)
    if reason := own.reasons.get(suite.base_window):
        effective = lengths.not_measurable(reason)
    facts = {"unit": "haystack", "protocol": json_kv.protocol(suite), "parts": 1}
    return {**_row(suite, KEY_VALUE, RELATIVE, effective, scores), **facts}


def _ruler_rows(suite: EvalSuite, scores: Mapping[int, Score]) -> list[Row]:
    """By the own score; in mode `ruler` by the published threshold too."""
    settings = suite.config.ruler
    relative = lengths.relative(scores, suite.base_window, suite.seed)
    rows = [_row(suite, RULER, RELATIVE, relative, scores)]
    if settings.mode == "ruler":
        bar = lengths.PUBLISHED[settings.form]
        rule = f"at least {100 * bar:.1f}, RULER's threshold for {settings.form} models"
        published = lengths.published(scores, settings.form, suite.seed)
        rows.append(_row(suite, RULER, rule, published, scores))
    parts = min((len(score) for score in scores.values()), default=0)
    protocol = f"mean of {parts} RULER configurations, mode {settings.mode}, {settings.form} form"
    facts = {"unit": "question", "protocol": protocol, "parts": parts}
    return [{**row, **facts} for row in rows]


def _row(
    suite: EvalSuite,
    source: str,
    rule: str,
    effective: EffectiveLength,
    scores: Mapping[int, Score],
) -> Row:
    row: dict[str, Any] = {"source": source, "rule": rule, **asdict(effective)}
    row["text"] = lengths.text(effective, min(scores, default=suite.base_window))
    row["longest"] = max(scores, default=None)
    ratio = None
    if row["longest"] is not None:
        ratio = lengths.ratio(scores, suite.base_window, row["longest"], suite.seed)
    value, low, high = (None, None, None) if ratio is None else ratio[:3]
    return {**row, "ratio": value, "ratio_low": low, "ratio_high": high, "seed": suite.seed}
