"""JSON key-value: the decoded prompt answers itself, fills its length, and asks everywhere."""

import json
import re
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tokenizer_families import FAMILIES

from ropewalk.conf.errors import DataError
from ropewalk.data.retrieval import Haystack, key_value, records
from ropewalk.data.retrieval.haystack import ask

SPLIT = ("llama3", "qwen2", "gpt2", "deepseek", "o200k", "digits", "sentencepiece_bpe")


class Codec:
    def __init__(self, family: str) -> None:
        self.backend = FAMILIES[family]()

    def encode(self, text: str) -> np.ndarray:
        return np.asarray(self.backend.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    def decode(self, *ids: np.ndarray) -> str:
        return str(self.backend.decode(np.concatenate(ids).tolist(), skip_special_tokens=False))


class Bytes(Codec):
    """A token a byte."""

    def __init__(self) -> None:
        pass

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.int64)

    def decode(self, *ids: np.ndarray) -> str:
        return bytes(np.concatenate(ids).tolist()).decode()


@pytest.fixture(scope="module")
def codec() -> Codec:
    return Codec("digits")


def make(codec: Codec, length: int, seed: int = 0, **settings: Any) -> Haystack:
    return key_value(codec.encode, length, np.random.default_rng(seed), **settings)


def solve(prompt: str) -> tuple[dict[str, str], list[tuple[str, str]], str]:
    """By a JSON parser: the object, the shots and the key asked for."""
    block = prompt[prompt.index("{") : prompt.index("}") + 1]
    shots = re.findall(r'Key: "(.*)"\nValue: "(.*)"\n', prompt)
    return json.loads(block), shots, prompt.rsplit('Key: "', 1)[1].split('"')[0]


@pytest.mark.parametrize("family", SPLIT)
@pytest.mark.parametrize(("length", "digits"), [(1500, None), (300, 5), (700, 4)])
@pytest.mark.parametrize("shots", [0, 2])
def test_the_decoded_prompt_alone_answers_every_question(
    family: str, length: int, digits: int | None, shots: int
) -> None:
    codec = Codec(family)
    haystack = make(codec, length, shots=shots, digits=digits)
    for question in haystack.questions:
        pairs, shown, key = solve(codec.decode(haystack.context, question.ids))
        assert pairs[key] == question.value == codec.decode(question.answer)
        assert len(pairs) == haystack.pairs and len(shown) == shots
        assert all(pairs[k] == v for k, v in shown) and key not in dict(shown)
        texts = [*pairs, *pairs.values()]
        assert len(set(texts)) == len(texts)
        whole = codec.encode(codec.decode(haystack.context, question.ids, question.answer))
        parts = [*haystack.context, *question.ids, *question.answer]
        assert whole.tolist() == parts


@pytest.mark.parametrize("family", SPLIT)
@pytest.mark.parametrize("digits", [None, 5])
def test_one_pair_more_would_not_fit(family: str, digits: int | None) -> None:
    codec = Codec(family)
    for length in range(1400, 1406):
        haystack = make(codec, length, seed=length, digits=digits)
        pairs, _, _ = solve(codec.decode(haystack.context, haystack.questions[0].ids))
        texts = [f'"{key}": "{value}",\n' for key, value in pairs.items()]
        longest = max(len(codec.encode(text)) for text in texts)
        assert 0 <= length - haystack.tokens < longest + 4


def places(haystack: Haystack, codec: Codec) -> list[int]:
    pairs, _, _ = solve(codec.decode(haystack.context, haystack.questions[0].ids))
    keys = list(pairs)
    return [keys.index(question.key) for question in haystack.questions]


def test_each_part_of_the_object_is_asked_once_and_its_places_equally_often() -> None:
    """44 pairs in 10 parts of 4 or 5 places: uniform within each part."""
    codec, counts = Bytes(), Counter[int]()
    for seed in range(400):
        haystack = make(codec, 920, seed, digits=5)
        k = haystack.pairs
        asked = places(haystack, codec)
        assert [place * 10 // k for place in asked] == list(range(10))
        assert [q.depth for q in haystack.questions] == pytest.approx(np.arange(0.05, 1, 0.1))
        counts.update(asked)
    assert k % 10  # the parts have 4 or 5 places
    parts: dict[int, list[int]] = {}
    for place in range(k):
        parts.setdefault(place * 10 // k, []).append(counts[place])
    p_values = [stats.chisquare(part).pvalue for part in parts.values()]
    assert min(p_values) > 0.001
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


def test_digits_of_keys_and_values_are_uniform(codec: Codec) -> None:
    texts = [
        text
        for seed in range(20)
        for question in make(codec, 800, seed, digits=5).questions
        for text in (question.key, question.value)
    ]
    counts = Counter("".join(texts))
    assert all(len(text) == 5 for text in texts) and set(counts) == set("0123456789")
    assert stats.chisquare(list(counts.values())).pvalue > 0.001


def test_uuids_are_of_version_4(codec: Codec) -> None:
    form = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
    for question in make(codec, 3000).questions:
        assert form.fullmatch(question.key) and form.fullmatch(question.value)


def test_a_small_object_has_fewer_questions_and_never_asks_a_shot(codec: Codec) -> None:
    for seed in range(20):
        haystack = make(codec, 230, seed, digits=4)
        assert 4 <= haystack.pairs < 12
        assert 1 <= len(haystack.questions) <= haystack.pairs - 2
        _, shown, _ = solve(codec.decode(haystack.context, haystack.questions[0].ids))
        assert not dict(shown).keys() & {question.key for question in haystack.questions}


def test_a_length_without_room_for_shots_and_two_pairs_is_refused(codec: Codec) -> None:
    with pytest.raises(DataError, match="json_kv length is 100; it must hold 2 shots and 4"):
        make(codec, 100)
    least = next(n for n in range(50, 500) if _fits(codec, n))
    assert make(codec, least, digits=4).pairs == 4
    with pytest.raises(DataError, match=f"and 4 records, {least} tokens"):
        make(codec, least - 1, digits=4)


def _fits(codec: Codec, length: int) -> bool:
    try:
        make(codec, length, digits=4)
    except DataError:
        return False
    return True


def test_too_few_digits_for_different_keys_are_refused(codec: Codec) -> None:
    with pytest.raises(DataError, match=r"digits is 2; 2000 tokens need \d+ different keys"):
        make(codec, 2000, digits=2)


def test_as_many_keys_and_values_as_there_are_numbers_are_enough() -> None:
    """A pair of 3 digits has 12 bytes, so 2 x (16 + 5 x 4647 // 48) = 1000; 4656 bytes: 1002."""
    assert make(Bytes(), 4647, digits=3).pairs > 200
    with pytest.raises(DataError, match="digits is 3; 4656 tokens need 1002 .* more than 1000;"):
        make(Bytes(), 4656, digits=3)


@pytest.mark.parametrize(("joined", "left_out"), [(0, 0), (5, 1), (14, 1), (15, 2)])
def test_records_that_have_more_tokens_together_are_left_out_one_by_one(
    joined: int, left_out: int
) -> None:
    """20 records of 10 bytes with a separator of 2, and 4 bytes around them; `joined` tokens more
    from 10 records on: 242 of 244, then 12 fewer for each that is left out."""

    def encode(text: str) -> np.ndarray:
        more = [1] * (joined if text.count(",\n") > 8 else 0)
        return np.array([*more, *text.encode()])

    form = records.Form("x", "{", ",\n", "}", "", "")
    drawn = [records.Record("0123456789", str(n), "?", "!") for n in range(40)]
    rng = np.random.default_rng(0)
    made = records.fill(encode, 244, rng, drawn, form, positions=3, shots=0)
    assert made[1].pairs == 20 - left_out and made[1].tokens == 242 + joined - 12 * left_out


def test_the_same_stream_gives_the_same_tokens(codec: Codec) -> None:
    one, two, other = (make(codec, 900, seed) for seed in (3, 3, 4))
    assert one.context.tolist() == two.context.tolist() != other.context.tolist()


def test_a_tokenizer_that_joins_question_and_answer_is_refused() -> None:
    def encode(text: str) -> np.ndarray:
        """Two characters a token."""
        return np.array([hash(text[k : k + 2]) for k in range(0, len(text), 2)])

    ids, answer = ask(encode, "", "Value:", "12345", "json_kv")
    assert (len(ids), len(answer)) == (3, 3)
    with pytest.raises(DataError, match="json_kv: .*must end a token between question and answer"):
        ask(encode, "", "Key", "12345", "json_kv")
