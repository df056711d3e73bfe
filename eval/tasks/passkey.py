"""Passkey retrieval: a key hidden in held-out text, asked for at its end, by length and depth."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ropewalk.data.random_streams import Purpose, generator
from ropewalk.data.retrieval import Passkey, passkey, random_key, random_span
from ropewalk.eval.measure import statistics
from ropewalk.eval.measure.statistics import Estimate
from ropewalk.eval.report.figures.heatmap import heat_maps
from ropewalk.eval.report.sentences import list_by_model, sentence
from ropewalk.eval.requests import Prompt, Prompts, Result, answered
from ropewalk.eval.tasks.task import (
    Comparison,
    EvalSuite,
    Measured,
    ModelRows,
    Rows,
    Sample,
    Task,
    Verdict,
)

PROTOCOL = "single pass key of 5 digits in held-out text; greedy answer, every token"


class PasskeyRetrieval(Task):
    name = "passkey"
    title = "Passkey retrieval"

    def samples(self, suite: EvalSuite) -> Sequence[Sample]:
        """The questions of each length and depth. Raises: DataError without enough text."""
        lengths = suite.config.passkey_lengths or suite.contexts
        tries = suite.config.passkey_tries
        if not tries:
            return []
        suite.refuse_short_filler("eval.passkey_lengths", lengths)
        return [
            _sample(question(suite, length, index, depth, number), length, depth, number)
            for length in lengths
            for index, depth in enumerate(suite.config.passkey_depths)
            for number in range(tries)
        ]

    def rows(self, measured: Measured) -> Rows:
        hits: dict[tuple[int, float], list[bool]] = {}
        for sample, result in zip(measured.samples, measured.results, strict=True):
            cell = (sample.facts["length"], sample.facts["depth"])
            hits.setdefault(cell, []).extend(answered(sample.request, result))
        return [_row(length, depth, correct) for (length, depth), correct in hits.items()]

    def scores(self, suite: EvalSuite, sample: Sample, result: Result) -> list[float]:
        return [float(hit) for hit in answered(sample.request, result)]

    def verdicts(self, comparison: Comparison) -> list[Verdict]:
        if not comparison.is_past_window:
            return []
        length = comparison.length
        cells = [row for row in comparison.judged_rows if row["length"] == length]
        if not cells:
            return []
        n = sum(cell["n"] for cell in cells)
        hits = sum(round(cell["accuracy"] * cell["n"]) for cell in cells)
        share = Estimate(hits / n, *statistics.wilson(hits, n), n)
        name = f"Passkey at {length:,}"
        rule = f"{comparison.judged}, mean over the depths: at least 80%"
        return [Verdict(name, share, 0.8, rule, "prompt", "share", question=3, better="above")]

    def figure(self, rows: ModelRows, window: int | None) -> str | None:
        return heat_maps(rows, "share of keys found, one scale for all")

    def reading(self, rows: ModelRows, window: int | None) -> str | None:
        if not window:
            return None
        beyond = list_by_model(rows, lambda cells: _hits(cells, window, math.inf))
        inside = list_by_model(rows, lambda cells: _hits(cells, 0, window))
        text = f"beyond {window:,} tokens the keys found are {beyond}"
        clauses = {text: beyond, f"up to {window:,} tokens, {inside}": inside}
        return sentence(clause for clause, values in clauses.items() if values)


def _sample(question: Passkey, length: int, depth: float, number: int) -> Sample:
    end = len(question.ids) - question.after
    ids, answer = np.split(question.ids[:end], [end - question.answer_len])
    name = f"passkey/{length}/{depth:g}/{number:03}"
    return Sample(name, name, Prompts((Prompt(ids, answer),)), {"length": length, "depth": depth})


def _row(length: int, depth: float, correct: Sequence[bool]) -> dict[str, Any]:
    hits, n = sum(correct), len(correct)
    low, high = statistics.wilson(hits, n)
    cell = {"length": length, "depth": depth, "n": n, "accuracy": hits / n}
    return {**cell, "low": low, "high": high, "unit": "question", "protocol": PROTOCOL}


def question(suite: EvalSuite, length: int, index: int, depth: float, number: int) -> Passkey:
    """A question with its own random stream, keyed by length, index of the depth and number.

    The sources that have enough text give the filler in turn. Raises: DataError.
    """
    marks, tries = suite.boundary_tokens, suite.config.passkey_tries
    rng = generator(Purpose.EVAL_QUESTION, suite.seed, (length << 20) + (index << 10) + number)
    filler = random_span(suite.filler(length, index * tries + number), length, rng)
    key = random_key(rng)
    text = passkey(suite.encode, filler, key, length - marks.count, depth)
    return Passkey(marks.lay_out(text.ids), text.answer_len, after=marks.count - marks.before)


def _hits(cells: Rows, low: float, high: float) -> str | None:
    """Correct answers of the cells with a length above `low` and up to `high`."""
    cells = [cell for cell in cells if low < cell["length"] <= high]
    if not cells:
        return None
    hits = sum(round(cell["accuracy"] * cell["n"]) for cell in cells)
    return f"{hits:,} of {sum(cell['n'] for cell in cells):,}"
