"""Synthetic multi-document questions: short invented biographies, one attribute asked, every depth
on one prefill; beside them the same questions without documents and with the right one alone.
"""

from collections.abc import Sequence

from ropewalk.data.random_streams import Purpose, generator
from ropewalk.data.retrieval import Haystack, documents
from ropewalk.data.retrieval.biographies import chance
from ropewalk.eval.report.figures.curves import curve_figure, depth_curves
from ropewalk.eval.report.figures.style import Drawing
from ropewalk.eval.report.sentences import sentence
from ropewalk.eval.tasks import haystacks
from ropewalk.eval.tasks.haystacks import Built, Row
from ropewalk.eval.tasks.json_kv import mean_reading
from ropewalk.eval.tasks.task import EvalSuite, Measured, ModelRows, Rows, Sample

DOCUMENTS, CLOSED_BOOK, ORACLE = "all documents", "closed book", "oracle"
ORACLE_QUESTIONS = 2
"""Of each haystack: every one has a prompt of its own."""


class MultiDocumentQa(haystacks.HaystackTask):
    """No verdict: lost in the middle shows the same answers."""

    name = "multi_document_qa"
    title = "Multi-document questions (synthetic)"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        """A sample for each set of documents, and for each bound of it. Raises: DataError."""
        return built(suite).samples

    def rows(self, measured: Measured) -> Rows:
        """By length: a row for each depth, and one of all depths; at the shortest length also
        closed book and oracle, which do not depend on the length."""
        suite, rows = measured.suite, list[Row]()
        shots = suite.config.multi_document_qa.shots
        own = {"unit": "haystack", "protocol": protocol(shots), "shots": shots}
        own |= {"haystack": "synthetic biographies", "seed": suite.seed}
        for length in lengths(suite):
            if reason := built(suite).reasons.get(length):
                rows.append(haystacks.not_measurable(length, reason, documents=DOCUMENTS, **own))
                continue
            for kind in (DOCUMENTS, CLOSED_BOOK, ORACLE):
                part = measured.select(length=length, documents=kind)
                if not part.samples:
                    continue
                facts = {**haystacks.prompt_facts(part.samples), "chance": chance(), **own}
                answers = [*haystacks.answers(part)]
                cells = haystacks.by_depth(answers) if kind == DOCUMENTS else []
                cells.append(haystacks.over_depths(answers, suite.seed))
                rows += [{"length": length, "documents": kind, **c, **facts} for c in cells]
        return rows

    def figure(self, rows: ModelRows, window: int | None) -> Drawing | None:
        return curve_figure(
            rows,
            depth_curves(
                "accuracy",
                "depth of the document (0: first)",
                self.name,
                "Right answers by depth of the document, with intervals",
                level=chance(),
            ),
        )

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        """All documents between their bounds."""
        clauses = []
        for kind, words in (
            (DOCUMENTS, "the right answers are"),
            (ORACLE, "with the right document alone they are"),
            (CLOSED_BOOK, "without documents they are"),
        ):
            part = {n: [r for r in p if r["documents"] == kind] for n, p in rows.items()}
            if text := mean_reading(part, None, words):
                clauses.append(text[0].lower() + text[1:-1])
        return sentence(clauses)


def lengths(suite: EvalSuite) -> list[int]:
    ends = {suite.contexts[0], suite.contexts[-1]}
    return sorted(suite.config.multi_document_qa.lengths or ends)


def protocol(shots: int) -> str:
    return f"synthetic biographies, {shots} shots; greedy answer, every token"


def built(suite: EvalSuite) -> Built:
    """Made once for a suite. Raises: DataError."""
    return suite.once("multi_document_qa", lambda: _build(suite))


def _build(suite: EvalSuite) -> Built:
    settings = suite.config.multi_document_qa
    bounded = dict[str, int]()  # the bounds do not depend on the length: asked at one

    def make(length: int, number: int) -> list[Sample]:
        rng = generator(Purpose.EVAL_BIOGRAPHIES, suite.seed, (length << 20) + number)
        room = haystacks.room(suite, length)
        biographies = documents(
            suite.encode, room, rng, positions=settings.positions, shots=settings.shots
        )
        name = f"multi_document_qa/{length}/{number:03}"

        def one(kind: str, part: str, haystack: Haystack) -> Sample:
            facts = {"length": length, "documents": kind}
            return haystacks.sample(suite, f"{name}/{part}", haystack, facts, unit=name)

        all_documents = [one(DOCUMENTS, "documents", biographies.haystack)]
        if bounded.setdefault("length", length) != length:
            return all_documents
        bounds = [
            one(ORACLE, f"oracle-{k}", part)
            for k, part in enumerate(biographies.oracle[:ORACLE_QUESTIONS])
        ]
        return [*all_documents, one(CLOSED_BOOK, "closed_book", biographies.closed_book), *bounds]

    return haystacks.build(lengths(suite), settings.haystacks, make)
