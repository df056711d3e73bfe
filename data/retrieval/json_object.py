"""One JSON object of random keys and values, asked at many places (Liu et al., 2023).

The pairs are independent draws, so asking at place i of one object has the distribution of moving
one pair to place i: one forward pass over the object serves the questions at every depth.
"""

from collections.abc import Sequence
from uuid import UUID

import numpy as np

from ropewalk.conf.errors import DataError
from ropewalk.data.retrieval.haystack import Encode, Haystack, Question, ask

OPENING = "A JSON object with one value for each key:\n{"
PAIR = '"{key}": "{value}"'
CLOSING = "}\n"
QUESTION = 'Key: "{key}"\nValue: "'
SHOT = QUESTION + '{value}"\n'
TASK = "json_kv"
Pair = tuple[str, str]


def key_value(
    encode: Encode,
    length: int,
    rng: np.random.Generator,
    *,
    positions: int = 10,
    shots: int = 2,
    digits: int | None = None,
) -> Haystack:
    """A JSON object, `shots` solved questions, and a question at each depth.

    With the longest question and answer it has at most `length` tokens, and one pair more would
    not fit. The object is divided into `positions` equal parts by place, and one pair of each is
    asked about, at a random place in it; an object of fewer than `positions + shots` pairs has
    fewer questions. `digits`: of each key and value; without it they are uuids.
    Raises: DataError when the shots and two pairs do not fit, or the tokenizer joins two parts.
    """
    pairs = _random_pairs(encode, length, rng, digits)
    task = _task_tokens(encode, pairs[:shots], pairs[shots : shots + positions])
    sizes = np.array([_size(encode, pairs[0], pair) for pair in pairs])
    count = int(np.searchsorted(np.cumsum(sizes), length - task, side="right"))
    while count >= shots + 2:
        haystack = _haystack(encode, pairs[:count], shots, positions, rng)
        if haystack.tokens <= length:
            return haystack
        count -= 1  # lines joined had more tokens than each alone
    raise DataError(
        f"{TASK} length is {length}; it must hold {shots} shots and {shots + 2} pairs, "
        f"{task + int(sizes[: shots + 2].sum())} tokens; raise the length, or set "
        "eval.json_kv.digits for shorter keys"
    )


def _haystack(
    encode: Encode, pairs: Sequence[Pair], shots: int, positions: int, rng: np.random.Generator
) -> Haystack:
    """The first pairs are the shots, the next are asked about, and each gets its place."""
    order = rng.permutation(len(pairs))
    shown, rest = order[:shots], np.sort(order[shots:])
    parts = [rest[rest * positions // len(pairs) == part] for part in range(positions)]
    asked = [int(rng.choice(part)) for part in parts if len(part)]
    placed = _place(pairs, [*map(int, shown), *asked])
    block = OPENING + ",\n".join(PAIR.format(key=k, value=v) for k, v in placed) + CLOSING
    examples = "".join(SHOT.format(key=k, value=v) for k, v in pairs[:shots])
    context, before = encode(block + examples), CLOSING + examples
    questions = []
    for (key, value), place in zip(pairs[shots:], asked, strict=False):
        ids, answer = ask(encode, before, QUESTION.format(key=key), value, TASK)
        depth = (place * positions // len(pairs) + 0.5) / positions
        questions.append(Question(ids, answer, key, value, depth))
    return Haystack(context, tuple(questions), len(pairs))


def _place(pairs: Sequence[Pair], places: Sequence[int]) -> list[Pair]:
    """The first pairs at their places, the others in their order at the rest."""
    placed: list[Pair | None] = [None] * len(pairs)
    for pair, place in zip(pairs, places, strict=False):
        placed[place] = pair
    others = iter(pairs[len(places) :])
    return [next(others) if pair is None else pair for pair in placed]


def _random_pairs(
    encode: Encode, length: int, rng: np.random.Generator, digits: int | None
) -> list[Pair]:
    """More pairs than `length` tokens hold; no two of their keys and values are equal."""
    sample = PAIR.format(key=_uuid(rng), value=_uuid(rng))
    if digits is not None:
        sample = PAIR.format(key="0" * digits, value="9" * digits)
    count = 16 + 5 * length // (4 * max(1, len(encode(sample))))
    if digits is None:
        texts = [_uuid(rng) for _ in range(2 * count)]
    elif 2 * count > 10**digits:
        raise DataError(
            f"eval.json_kv.digits is {digits}; {length} tokens need {2 * count} different keys and "
            f"values, more than {10**digits}; raise it, or lower the length"
        )
    else:
        numbers = rng.choice(10**digits, 2 * count, replace=False)
        texts = [f"{number:0{digits}d}" for number in numbers]
    return list(zip(texts[::2], texts[1::2], strict=True))


def _uuid(rng: np.random.Generator) -> str:
    return str(UUID(bytes=rng.bytes(16), version=4))


def _size(encode: Encode, before: Pair, pair: Pair) -> int:
    """Tokens of a line of the object after another."""
    first, line = (f"{PAIR.format(key=key, value=value)},\n" for key, value in (before, pair))
    return len(encode(first + line)) - len(encode(first))


def _task_tokens(encode: Encode, shots: Sequence[Pair], asked: Sequence[Pair]) -> int:
    """Tokens of all but the object's lines: opening, closing, shots, and the longest question."""
    examples = "".join(SHOT.format(key=k, value=v) for k, v in shots)
    rest = OPENING + CLOSING + examples
    questions = [encode(rest + QUESTION.format(key=k, value=v) + v) for k, v in asked]
    return max(map(len, questions))
