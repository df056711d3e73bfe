"""Synthetic retrieval: the needle occurs once, at its depth, and decodes to the key."""

from typing import Any

import numpy as np
import pytest

from ropewalk.conf.errors import DataError
from ropewalk.data import retrieval


@pytest.fixture(scope="module")
def encode(tokenizer: Any) -> Any:
    return lambda text: np.asarray(
        tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int64
    )


FILLER = np.full(2000, 70, dtype=np.int64)


@pytest.mark.parametrize("depth", [0.0, 0.3, 1.0])
def test_a_passkey_has_its_length_needle_and_answer(
    encode: Any, tokenizer: Any, depth: float
) -> None:
    question = retrieval.passkey(encode, FILLER, "40718", 400, depth)
    text = tokenizer.decode(question.ids)
    assert len(question.ids) == 400
    assert text.count("40718") == 3  # twice in the needle, once as the answer
    assert text.endswith("What is the pass key? The pass key is 40718")
    assert tokenizer.decode(question.ids[-question.answer_len :]) == " 40718"


@pytest.mark.parametrize("depth", [0.0, 0.25, 0.5, 1.0])
def test_the_needle_is_at_its_depth(encode: Any, depth: float) -> None:
    question = retrieval.passkey(encode, FILLER, "40718", 400, depth)
    room = int((question.ids == 70).sum())
    position = int(np.argmax(question.ids != 70))
    assert position == pytest.approx(depth * room, abs=1)


def test_passkey_keeps_the_filler_in_order(encode: Any) -> None:
    filler = np.arange(100_000, 100_900)
    question = retrieval.passkey(encode, filler, "12345", 300, 0.4)
    filler_ids = question.ids[question.ids >= 100_000]
    assert filler_ids.tolist() == list(range(100_000, 100_000 + len(filler_ids)))


def test_passkey_without_room_is_refused_with_the_numbers(encode: Any) -> None:
    with pytest.raises(DataError, match="passkey length is 50; it must hold"):
        retrieval.passkey(encode, FILLER, "12345", 50, 0.5)


def test_passkey_with_too_little_filler_is_refused(encode: Any) -> None:
    with pytest.raises(DataError, match="filler of at most 10 tokens"):
        retrieval.passkey(encode, FILLER[:10], "12345", 400, 0.5)


def test_tokenizer_that_joins_question_and_answer_is_refused() -> None:
    by_text: dict[str, int] = {}
    encode_as_one = lambda text: np.array([by_text.setdefault(text, len(by_text))])  # noqa: E731
    with pytest.raises(DataError, match="joins question and answer"):
        retrieval.passkey(encode_as_one, FILLER, "12345", 400, 0.5)


def test_random_keys_are_five_digits_and_differ() -> None:
    rng = np.random.default_rng(0)
    keys = [retrieval.random_key(rng) for _ in range(100)]
    assert all(len(key) == 5 and key.isdigit() for key in keys)
    assert len(set(keys)) > 95


@pytest.mark.parametrize("length", [1, 30, 100, 250])
def test_a_random_span_is_consecutive_and_wraps_around(length: int) -> None:
    span = retrieval.random_span(np.arange(100), length, np.random.default_rng(1))
    assert len(span) == length
    steps = set(np.diff(span[:100]).tolist())
    assert steps <= {1, -int(span.max() - span.min())}


@pytest.mark.parametrize("seed", range(10))
def test_repeat_can_be_copied_after_its_first_period(seed: int) -> None:
    ids = retrieval.repeat(np.arange(10_000), 256, np.random.default_rng(seed))
    period = next(p for p in range(1, 256) if np.array_equal(ids[p:], ids[:-p]))
    assert len(ids) == 256
    assert 32 <= period <= 128
