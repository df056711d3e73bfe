"""What the tasks on haystacks share: samples of a haystack's questions, and rows of the answers.

A haystack's questions stand after one context, which is computed once. Its answers depend on one
another, so the bootstrap's unit is the haystack.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ropewalk.conf.errors import DataError
from ropewalk.data.retrieval import Haystack, Question, TooShort
from ropewalk.eval.measure import proportions, statistics
from ropewalk.eval.requests import Prompt, Prompts, Result, answered, prompt_hash
from ropewalk.eval.tasks.task import EvalSuite, Measured, Sample, Task

Row = dict[str, Any]


@dataclass(frozen=True)
class Built:
    """The samples of a task, and why a length has none."""

    samples: list[Sample]
    reasons: Mapping[int, str]


class HaystackTask(Task):
    """A task whose samples are those of `sample`."""

    def scores(self, suite: EvalSuite, sample: Sample, result: Result) -> list[float]:
        return [float(hit) for hit in correct(suite, sample, result)]


def build(lengths: Sequence[int], count: int, make: Callable[[int, int], list[Sample]]) -> Built:
    """`make`: the samples of a length and a number below `count`. Raises: DataError."""
    samples: list[Sample] = []
    reasons = {}
    for length in lengths:
        try:
            samples += [sample for number in range(count) for sample in make(length, number)]
        except TooShort as reason:
            reasons[length] = str(reason)
    return Built(samples, reasons)


def sample(
    suite: EvalSuite,
    name: str,
    haystack: Haystack,
    facts: Mapping[str, Any],
    *,
    unit: str = "",
    context: int | None = None,
    max_new_tokens: int = 0,
) -> Sample:
    """All questions about one haystack, which share its forward pass. Raises: DataError.

    `context`: tokens that are computed as one part; unset: all before the question.
    """
    questions, prompts = haystack.questions, list[Prompt]()
    for question in questions:
        _check_answer(suite, name.split("/")[0], question)
        ids = np.concatenate([_begin(suite), haystack.context, question.ids])
        shared = len(ids) - len(question.ids) if context is None else context
        until = (question.value,) if max_new_tokens else ()
        prompts.append(Prompt(ids, question.answer, shared, max_new_tokens, until))
    own = {
        "pairs": haystack.pairs,
        "fill": max(prompt.tokens for prompt in prompts),
        "depths": [question.depth for question in questions],
        "values": [question.value for question in questions],
    }
    return Sample(name, unit or name, Prompts(tuple(prompts)), {**facts, **own})


def _begin(suite: EvalSuite) -> np.ndarray:
    """The token before a document, as in training."""
    begin = suite.boundary_tokens.begin
    return np.array([] if begin is None else [begin], dtype=np.int64)


def _check_answer(suite: EvalSuite, task: str, question: Question) -> None:
    """Raises: DataError when the tokenizer does not give the answer back."""
    if suite.decode is None:
        return
    text = suite.decode(question.answer.tolist())
    if text.strip() != question.value:
        raise DataError(
            f"{task}: the tokens of the answer {question.value!r} decode to {text!r}; they must "
            f"decode to the answer; leave {task} out of eval.tasks"
        )


def room(suite: EvalSuite, length: int, max_new_tokens: int = 0) -> int:
    """Tokens of a haystack with a question and answer in a document of `length` tokens."""
    return length - suite.boundary_tokens.count - max_new_tokens


def only(measured: Measured, samples: Sequence[Sample]) -> Measured:
    """Of the results of several tasks, those of these samples."""
    names = {sample.id for sample in samples}
    numbers = [n for n, sample in enumerate(measured.samples) if sample.id in names]
    base = None if measured.base is None else [measured.base[n] for n in numbers]
    own = [measured.samples[n] for n in numbers]
    results = [measured.results[n] for n in numbers]
    return replace(measured, samples=own, results=results, base=base)


@dataclass(frozen=True)
class Answer:
    """Whether one question was answered, and by the base model."""

    depth: float
    unit: str
    correct: bool
    base: bool | None


def answers(measured: Measured) -> Iterator[Answer]:
    for number, part in enumerate(measured.samples):
        own = correct(measured.suite, part, measured.results[number])
        base: Sequence[bool | None] = [None] * len(own)
        if measured.base is not None:
            base = correct(measured.suite, part, measured.base[number])
        for depth, hit, of_base in zip(part.facts["depths"], own, base, strict=True):
            yield Answer(depth, part.unit, hit, of_base)


def correct(suite: EvalSuite, sample: Sample, result: Result) -> list[bool]:
    """Whether each answer is right: of decoded text, whether the new tokens hold the value."""
    assert isinstance(sample.request, Prompts) and isinstance(result, tuple)
    if not sample.request.prompts[0].max_new_tokens:
        return answered(sample.request, result)
    assert suite.decode is not None
    pairs = zip(sample.facts["values"], result, strict=True)
    return [value.lower() in suite.decode(reply.ids).lower() for value, reply in pairs]


def share(answers: Sequence[Answer]) -> Row:
    """accuracy, low, high of answers, and n: how many."""
    estimate = proportions.accuracy([a.correct for a in answers], [a.unit for a in answers])
    row = {"n": len(answers), "accuracy": estimate.value}
    return {**row, "low": estimate.low, "high": estimate.high}


def by_depth(answers: Sequence[Answer]) -> list[Row]:
    """A row for each depth."""
    depths = sorted({answer.depth for answer in answers})
    return [{"depth": d, **share([a for a in answers if a.depth == d])} for d in depths]


def over_depths(answers: Sequence[Answer], seed: int) -> Row:
    """One row of all depths, with the paired difference to the base; `haystacks`: units."""
    row = {**share(answers), "haystacks": len({answer.unit for answer in answers})}
    if any(answer.base is None for answer in answers):
        return row
    change = np.array([float(a.correct) - float(bool(a.base)) for a in answers])
    draws = statistics.resamples([answer.unit for answer in answers], seed)
    value, low, high, n = statistics.mean(change, draws)
    if low == high:  # all haystacks agree: as for one answer of each
        moved = round(value * n)
        _, low, high, _ = proportions.paired_difference(max(-moved, 0), max(moved, 0), n)
    return {**row, **dict(zip(statistics.PAIRED, (value, low, high), strict=True))}


def prompt_facts(samples: Sequence[Sample]) -> Row:
    """Of samples of one length: facts that stand in a row; `fill`: share of the length used."""
    pairs = np.mean([sample.facts["pairs"] for sample in samples])
    fill = np.mean([sample.facts["fill"] / sample.facts["length"] for sample in samples])
    return {
        "pairs": round(float(pairs), 1),
        "fill": round(float(fill), 4),
        "prompt_hash": prompt_hash(sample.request for sample in samples),
    }


def not_measurable(length: int, reason: str, **facts: Any) -> Row:
    empty = {"n": 0, "accuracy": None, "low": None, "high": None}
    return {"length": length, **empty, **facts, "reason": reason}


def few(lengths: Sequence[int], most: int = 4) -> list[int]:
    """At most `most` lengths, the first and the last among them, the others evenly between."""
    ordered = sorted(set(lengths))
    places = np.linspace(0, len(ordered) - 1, min(most, len(ordered))).round().astype(int)
    return [ordered[place] for place in places]
