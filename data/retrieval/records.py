"""A haystack of many records of one kind, filled to a length and asked at every depth.

The records are independent draws, so asking at place i of one haystack has the distribution of
moving one record to place i: one forward pass over it serves the questions at every depth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ropewalk.data.retrieval.haystack import Encode, Haystack, Question, TooShort, ask


@dataclass(frozen=True)
class Record:
    """One fact of the haystack, and how it is asked for."""

    text: str
    key: str
    question: str
    answer: str


@dataclass(frozen=True)
class Form:
    """The text around the records."""

    task: str
    opening: str
    between: str
    """Two records."""
    closing: str
    after_answer: str
    """Of a solved question."""
    way_out: str
    """For a length that is too short."""


@dataclass(frozen=True)
class Arrangement:
    """Records at their places, the solved questions, and the asked records with their depths."""

    placed: Sequence[Record]
    shots: Sequence[Record]
    asked: Sequence[tuple[Record, float]]


def fill(
    encode: Encode,
    length: int,
    rng: np.random.Generator,
    records: Sequence[Record],
    form: Form,
    *,
    positions: int,
    shots: int,
) -> tuple[Arrangement, Haystack]:
    """As many of the first records as `length` tokens hold with the shots and a question.

    The haystack is divided into `positions` equal parts by place, and one record of each is asked
    about, at a random place in it; one of fewer than `positions + shots` records has fewer
    questions. Raises: TooShort when the shots and two records do not fit.
    """
    task = _task_tokens(encode, records[:shots], records[shots : shots + positions], form)
    sizes = np.array([_size(encode, records[0], record, form) for record in records])
    count = int(np.searchsorted(np.cumsum(sizes), length - task, side="right"))
    assert count < len(records), "more records are drawn than fit"
    while count >= shots + 2:
        arrangement = arrange(records[:count], shots, positions, rng)
        haystack = lay_out(encode, arrangement, form)
        if haystack.tokens <= length:
            return arrangement, haystack
        count -= 1  # records joined had more tokens than each alone
    raise TooShort(
        f"{form.task} length is {length}; it must hold {shots} shots and {shots + 2} records, "
        f"{task + int(sizes[: shots + 2].sum())} tokens; {form.way_out}"
    )


def arrange(
    records: Sequence[Record], shots: int, positions: int, rng: np.random.Generator
) -> Arrangement:
    """The first records are the shots, the next are asked about, and each gets its place."""
    count = len(records)
    order = rng.permutation(count)
    shown, rest = order[:shots], np.sort(order[shots:])
    parts = [rest[rest * positions // count == part] for part in range(positions)]
    asked = [int(rng.choice(part)) for part in parts if len(part)]
    depths = [(place * positions // count + 0.5) / positions for place in asked]
    placed = _place(records, [*map(int, shown), *asked])
    return Arrangement(placed, records[:shots], [*zip(records[shots:], depths, strict=False)])


def lay_out(encode: Encode, arrangement: Arrangement, form: Form) -> Haystack:
    """The records at their places, the shots, and each question after them. Raises: DataError."""
    block = form.opening + form.between.join(r.text for r in arrangement.placed) + form.closing
    before = form.closing + _solved(arrangement.shots, form)
    questions = []
    for record, depth in arrangement.asked:
        ids, answer = ask(encode, before, record.question, record.answer, form.task)
        questions.append(Question(ids, answer, record.key, record.answer.strip(), depth))
    context = encode(block + _solved(arrangement.shots, form))
    return Haystack(context, tuple(questions), len(arrangement.placed))


def _place(records: Sequence[Record], places: Sequence[int]) -> list[Record]:
    """The first records at their places, the others in their order at the rest."""
    placed: list[Record | None] = [None] * len(records)
    for record, place in zip(records, places, strict=False):
        placed[place] = record
    others = iter(records[len(places) :])
    return [next(others) if record is None else record for record in placed]


def _solved(shots: Sequence[Record], form: Form) -> str:
    return "".join(shot.question + shot.answer + form.after_answer for shot in shots)


def _size(encode: Encode, before: Record, record: Record, form: Form) -> int:
    """Tokens of a record after another."""
    first = before.text + form.between
    return len(encode(first + record.text + form.between)) - len(encode(first))


def _task_tokens(
    encode: Encode, shots: Sequence[Record], asked: Sequence[Record], form: Form
) -> int:
    """Tokens of all but the records: opening, closing, shots, and the longest question."""
    rest = form.opening + form.closing + _solved(shots, form)
    return max(len(encode(rest + record.question + record.answer)) for record in asked)
