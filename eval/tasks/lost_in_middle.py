"""Lost in the middle: the answers of JSON key-value and multi-document questions by depth.

No text is computed for it: the answers are those of the two tasks.
"""

from collections.abc import Sequence
from functools import partial

from ropewalk.eval.measure import positions
from ropewalk.eval.measure.loss_rows import not_measurable
from ropewalk.eval.report.figures.curves import curve_figure, depth_curves
from ropewalk.eval.report.figures.style import Drawing
from ropewalk.eval.report.formats import percent
from ropewalk.eval.report.sentences import list_by_model, sentence
from ropewalk.eval.tasks import haystacks, json_kv, multi_document_qa
from ropewalk.eval.tasks.haystacks import Row
from ropewalk.eval.tasks.task import EvalSuite, Measured, ModelRows, Rows, Sample, Task

SOURCES = {"json_kv": json_kv, "multi_document_qa": multi_document_qa}
MOST_LENGTHS = 4


class LostInMiddle(Task):
    """No verdict: whether a curve sags is shown, not judged."""

    name = "lost_in_middle"
    title = "Lost in the middle"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        """Those of its sources in `eval.tasks`; of json_kv without any. Raises: DataError."""
        return [s for name in sources(suite) for s in _samples(suite, name)]

    def rows(self, measured: Measured) -> Rows:
        """By source and length: a row for each depth (curve) and for each measure."""
        suite, rows = measured.suite, list[Row]()
        for name in sources(suite):
            own = haystacks.only(measured, _samples(suite, name))
            lengths = {sample.facts["length"] for sample in own.samples}
            if not lengths:
                rows.append(_without_value(suite, name))
            for length in haystacks.few([*lengths], MOST_LENGTHS):
                facts = {"source": name, "length": length}
                asked = [*haystacks.answers(own.select(length=length))]
                by_depth = positions.ByDepth.of([(a.unit, a.depth, a.correct) for a in asked])
                protocol = {"unit": "haystack", "protocol": _protocol(suite, name)}
                measures = positions.measures(by_depth, suite.seed)
                rows += [{**facts, **row, **protocol, "seed": suite.seed} for row in measures]
        return rows

    def figure(self, rows: ModelRows, window: int | None) -> Drawing | None:
        """The curve of the first source, a panel a length."""
        return curve_figure(
            {name: _of(part, "curve") for name, part in rows.items()},
            depth_curves(
                "value",
                "depth (0: start of the text)",
                self.name,
                "Right answers by depth, with intervals",
            ),
        )

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        """Primacy, recency and the worst depth at the longest length."""
        lengths = [row["length"] for part in rows.values() for row in part]
        if not lengths:
            return None
        longest = {n: [r for r in part if r["length"] == max(lengths)] for n, part in rows.items()}
        clauses = []
        for measure, words in (
            ("primacy", "the first fifth less the middle is"),
            ("recency", "the last fifth less the middle is"),
            ("worst", "the lowest share of right answers at a depth is"),
        ):
            if text := list_by_model(longest, partial(_text, measure)):
                clauses.append(f"{words} {text}")
        if clauses:
            clauses[0] = f"at {max(lengths):,} tokens {clauses[0]}"
        return sentence(clauses)


def sources(suite: EvalSuite) -> list[str]:
    return [name for name in SOURCES if name in suite.config.tasks] or ["json_kv"]


def _samples(suite: EvalSuite, name: str) -> list[Sample]:
    """Of a source: those that ask about the whole haystack."""
    kinds = (None, multi_document_qa.DOCUMENTS)
    return [s for s in SOURCES[name].built(suite).samples if s.facts.get("documents") in kinds]


def _without_value(suite: EvalSuite, name: str) -> Row:
    """Of a source that no length can hold."""
    length, reason = max(SOURCES[name].built(suite).reasons.items())
    facts = {"source": name, "length": length, "measure": "worst", "unit": "haystack"}
    return not_measurable("value", reason, **facts, protocol=_protocol(suite, name))


def _protocol(suite: EvalSuite, name: str) -> str:
    if name == "json_kv":
        return json_kv.protocol(suite)
    return multi_document_qa.protocol(suite.config.multi_document_qa.shots)


def _of(rows: Rows, measure: str) -> list[Row]:
    """The rows of one measure of the first source."""
    first = rows[0]["source"] if rows else None
    return [row for row in rows if row["measure"] == measure and row["source"] == first]


def _text(measure: str, rows: Rows) -> str | None:
    own = _of(rows, measure)
    if not own or own[0].get("value") is None:
        return None
    row = own[0]
    depth = f" at depth {percent(row['depth'], 0)}" if "depth" in row else ""
    if row.get("low") is None:
        return f"{row['value']:.0%}{depth}"
    return f"{row['value']:.0%} [{row['low']:.0%}, {row['high']:.0%}]{depth}"
