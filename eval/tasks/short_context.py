"""Loss on short text, beside the base's on the same documents: what the longer window has cost."""

from collections.abc import Iterator, Sequence
from importlib.metadata import version

import numpy as np

from ropewalk.eval.measure import proportions
from ropewalk.eval.measure.loss_rows import Row, mean_row, not_measurable
from ropewalk.eval.measure.statistics import PAIRED
from ropewalk.eval.report.sentences import difference_text, list_by_model, sentence
from ropewalk.eval.requests import Text, digest
from ropewalk.eval.tasks import lm_eval_tasks
from ropewalk.eval.tasks.lm_eval_tasks import Item
from ropewalk.eval.tasks.task import (
    Comparison,
    EvalSuite,
    Measured,
    ModelRows,
    Rows,
    Sample,
    Task,
    Verdict,
    difference,
)

SHARES = (1, 2, 4)
"""The texts have the base's window over each of these, in turn."""
EDGES = (16, 4, 2, 1)
"""Position bins end at the base's window over each of these."""
PROTOCOL = "first tokens of held-out documents, up to 1, 1/2, 1/4 of the base's window in turn"


class ShortContext(Task):
    name = "short_context"
    title = "Short text"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        """Short documents, and the questions of other tasks. Raises: ConfigError, DataError."""
        documents = [
            Sample(f"short/{number:03}", origin, Text(ids), {"length": len(ids)})
            for number, (origin, ids) in enumerate(texts(suite))
        ]
        return [*documents, *lm_eval_tasks.samples(suite)]

    def rows(self, measured: Measured) -> Rows:
        """All positions, then bins of positions: a document counts in a bin by its tokens there.
        A row for each task of lm-eval follows."""
        tasks = measured.suite.config.short_context.lm_eval.tasks
        return [*_loss_rows(measured.select(task=None)), *(_task_row(measured, t) for t in tasks)]

    def verdicts(self, comparison: Comparison) -> list[Verdict]:
        names = f"{comparison.judged} against {comparison.reference}"
        return [verdict for row in comparison.judged_rows for verdict in _verdicts(row, names)]

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        """Each column's difference to the reference over all positions."""
        if not (values := list_by_model(rows, lambda part: difference_text(part[0]))):
            return None
        n = next(part[0]["n"] for part in rows.values() if difference_text(part[0]))
        text = f"on {n:,} short documents the loss differs from the reference's by"
        return sentence([f"{text} {values} nats per token"])


def _loss_rows(measured: Measured) -> list[Row]:
    window = measured.suite.base_window
    if not measured.samples:
        facts = {"part": "all", "from": 0, "to": window, "unit": "document"}
        return [not_measurable("nll", _reason(measured.suite), **facts, protocol=PROTOCOL)]
    ends = sorted({window // share for share in EDGES} - {0, 1})
    bins = list(zip([0, *ends[:-1]], ends, strict=True))
    all_positions = {"part": "all", "tolerance": measured.suite.config.gates.short_nats}
    return [
        {**all_positions, **_row(measured, 0, window)},
        *({"part": "positions", **_row(measured, low, high)} for low, high in bins),
    ]


def _verdicts(row: Row, names: str) -> Iterator[Verdict]:
    """Of the row of all positions, and of a task of lm-eval. `names`: of the two columns."""
    if row.get(PAIRED[0]) is None or row["part"] == "positions":
        return
    bar, change = row["tolerance"], difference(row)
    if row["part"] == "all":
        rule = f"{names} on short held-out documents: at most {bar:+g}"
        yield Verdict("Short documents", change, bar, rule, "document", "nats", 5)
    else:
        rule = f"{row['metric']} of {names}: at least {-bar:+g}"
        yield Verdict(row["task"], change, -bar, rule, "question", "points", 5, "above")


def texts(suite: EvalSuite) -> list[tuple[str, np.ndarray]]:
    """Documents and their first tokens (S,), laid out as in training. The shortest length is the
    least that a document must have."""
    lengths = [suite.base_window // share for share in SHARES]
    long_enough = [d for d in suite.documents if len(d.ids) >= max(lengths[-1], 2)]
    chosen = long_enough[: suite.config.short_context.documents]
    marks = suite.boundary_tokens
    laid_out = [
        marks.lay_out(np.asarray(document.ids, np.int64), 0, lengths[number % len(lengths)])
        for number, document in enumerate(chosen)
    ]
    return [(d.origin, ids.astype(np.int64)) for d, ids in zip(chosen, laid_out, strict=True)]


def _row(measured: Measured, low: int, high: int) -> Row:
    """Tokens at the positions [low, high)."""
    part = slice(max(low - 1, 0), high - 1)
    values = [np.asarray(result, np.float64)[part] for result in measured.results]
    base = None
    if measured.base is not None:
        base = [np.asarray(result, np.float64)[part] for result in measured.base]
    units = [sample.unit for sample in measured.samples]
    row = mean_row(units, values, base, measured.suite.seed)
    tokens = sum(map(len, values))
    facts = {"from": low, "to": high, "tokens": tokens, "unit": "document"}
    return {**facts, **row, "protocol": PROTOCOL}


def _reason(suite: EvalSuite) -> str:
    return (
        f"no held-out document has {suite.base_window // SHARES[-1]:,} tokens; add longer "
        "documents or raise data.heldout_share"
    )


def _task_row(measured: Measured, task: str) -> Row:
    """The score of a task in percent, and its paired difference to the base in points."""
    suite, settings = measured.suite, measured.suite.config.short_context.lm_eval
    own = _items(measured, task)
    scores = np.array([item.score for item in own.values()])
    first = next(iter(own.values()))
    row: Row = {"part": "lm_eval", "task": task, "metric": first.metric, "unit": "question"}
    row |= {"accuracy": 100 * float(scores.mean()), "n": len(scores)}
    low, high = proportions.of_scores(scores)[1:3]
    row |= {"low": low and 100 * low, "high": high and 100 * high}
    row |= {"tolerance": suite.config.gates.points, "shots": settings.num_fewshot}
    if (base := measured.of_base) is not None:
        theirs = _items(base, task)
        row |= _paired(scores, np.array([theirs[key].score for key in own]))
    return {**row, "protocol": f"lm-eval {version('lm_eval')}, inside {suite.base_window} tokens"}


def _items(measured: Measured, task: str) -> dict[str, Item]:
    pairs = zip(measured.samples, measured.results, strict=True)
    results = {digest(sample.request): result for sample, result in pairs}
    return lm_eval_tasks.items(measured.suite, task, results)


def _paired(scores: np.ndarray, base: np.ndarray) -> Row:
    """Of the same items, in points; of right and wrong answers also McNemar's exact test."""
    change = proportions.change(scores, base)
    points = (None if value is None else 100 * value for value in change[:3])
    row: Row = dict(zip(PAIRED, points, strict=True))
    if proportions.is_binary(scores) and proportions.is_binary(base):
        lost, gained = int((scores < base).sum()), int((scores > base).sum())
        row |= {"lost": lost, "gained": gained, "mcnemar_p": proportions.mcnemar(lost, gained)}
    return row
