"""One JSON object of random keys and values, asked at many places (Liu et al., 2023)."""

from uuid import UUID

import numpy as np

from ropewalk.conf.errors import DataError
from ropewalk.data.retrieval.haystack import Encode, Haystack
from ropewalk.data.retrieval.records import Form, Record, fill

PAIR = '"{key}": "{value}"'
QUESTION = 'Key: "{key}"\nValue: "'
FORM = Form(
    task="json_kv",
    opening="A JSON object with one value for each key:\n{",
    between=",\n",
    closing="}\n",
    after_answer='"\n',
    way_out="raise the length, or set eval.json_kv.digits for shorter keys",
)


def key_value(
    encode: Encode,
    length: int,
    rng: np.random.Generator,
    *,
    positions: int = 10,
    shots: int = 2,
    digits: int | None = None,
) -> Haystack:
    """A JSON object, `shots` solved questions, and a question at each of `positions` depths.

    With the longest question and answer it has at most `length` tokens, and one pair more would
    not fit. `digits`: of each key and value; without it they are uuids.
    Raises: TooShort when the shots and two pairs do not fit; DataError when the tokenizer joins
    question and answer.
    """
    pairs = _random_pairs(encode, length, rng, digits)
    return fill(encode, length, rng, pairs, FORM, positions=positions, shots=shots)[1]


def _random_pairs(
    encode: Encode, length: int, rng: np.random.Generator, digits: int | None
) -> list[Record]:
    """More pairs than `length` tokens hold; no two of their keys and values are equal."""
    sample = _uuid(rng) if digits is None else "0" * digits
    tokens = len(encode(_record(sample, sample).text))
    count = 2 * (16 + 5 * length // (4 * max(1, tokens)))
    if digits is None:
        texts = [_uuid(rng) for _ in range(count)]
    elif count > 10**digits:
        raise DataError(
            f"eval.json_kv.digits is {digits}; {length} tokens need {count} different keys and "
            f"values, more than {10**digits}; raise it, or lower the length"
        )
    else:
        numbers = rng.choice(10**digits, count, replace=False)
        texts = [f"{number:0{digits}d}" for number in numbers]
    return [_record(key, value) for key, value in zip(texts[::2], texts[1::2], strict=True)]


def _record(key: str, value: str) -> Record:
    return Record(PAIR.format(key=key, value=value), key, QUESTION.format(key=key), value)


def _uuid(rng: np.random.Generator) -> str:
    return str(UUID(bytes=rng.bytes(16), version=4))
