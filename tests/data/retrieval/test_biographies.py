"""Biographies: the decoded documents answer each question, the bounds are what they say."""

import re
from collections import Counter
from itertools import permutations

import byte_codec
import numpy as np
import pytest
from scipy import stats

from ropewalk.conf.errors import DataError
from ropewalk.data.retrieval import Documents, TooShort, biographies, documents

SENTENCE = re.compile(
    r"(?P<name>\w+ \w\. \w+) was born in (?P<born>\w+), studied (?P<study>\w+) and works as a "
    r"(?P<work>\w+)\. (?P=name) plays the (?P<play>\w+)\."
)


def make(length: int, seed: int = 0, **settings: int) -> Documents:
    return documents(byte_codec.encode, length, np.random.default_rng(seed), **settings)


def solve(prompt: str) -> str | None:
    """By regular expressions: the attribute of the person in the last question."""
    people = {match["name"]: match for match in SENTENCE.finditer(prompt)}
    question = prompt.rsplit("Question: ", 1)[1]
    match = re.search(r"\w+ \w\. \w+", question)
    assert match is not None
    word = next(verb for verb in ("born", "study", "work", "play") if verb in question)
    return people[match[0]][word] if match[0] in people else None


@pytest.mark.parametrize("length", [1500, 6000])
@pytest.mark.parametrize("shots", [0, 2])
def test_the_documents_alone_answer_and_without_them_nothing_does(length: int, shots: int) -> None:
    for seed in range(5):
        made = make(length, seed, shots=shots)
        assert len(made.oracle) == len(made.haystack.questions)
        for number, question in enumerate(made.haystack.questions):
            oracle, closed = made.oracle[number], made.closed_book
            prompts = [
                byte_codec.decode([*part.context, *part.questions[k].ids])
                for part, k in ((made.haystack, number), (oracle, 0), (closed, number))
            ]
            assert [solve(text) for text in prompts] == [question.value, question.value, None]
            assert byte_codec.decode(question.answer) == f" {question.value}"
            assert oracle.pairs == shots + 1 and closed.pairs == 0
            assert prompts[2].count("Question: ") == shots + 1


def test_one_document_more_would_not_fit() -> None:
    longest = 200  # bytes of the longest biography
    for length in range(3000, 3100, 7):
        made = make(length, length)
        assert 0 <= length - made.haystack.tokens < longest


def test_many_people_share_a_first_or_a_last_name_and_none_both_and_the_initial() -> None:
    haystack = make(9000).haystack
    text = byte_codec.decode(haystack.context)
    names = [match["name"].split() for match in SENTENCE.finditer(text)]
    assert len({tuple(name) for name in names}) == len(names) == haystack.pairs > 60
    for part in (0, 2):
        shared = Counter(name[part] for name in names)
        assert sum(n for n in shared.values() if n > 1) > 0.9 * len(names)


def test_values_and_attributes_are_uniform() -> None:
    values: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for seed in range(60):
        for question in make(6000, seed).haystack.questions:
            kind = next(k for k, words in biographies.CHOICES.items() if question.value in words)
            values[question.value] += kind == "city"
            kinds[kind] += 1
    assert stats.chisquare(list(kinds.values())).pvalue > 0.001
    cities = [values[city] for city in biographies.CHOICES["city"]]
    assert stats.chisquare(cities).pvalue > 0.001


def test_no_value_is_the_beginning_of_another_of_its_kind() -> None:
    for words in biographies.CHOICES.values():
        assert not [pair for pair in permutations(words, 2) if pair[1].startswith(pair[0])]
        assert len(set(words)) == len(words)


def test_chance_is_that_of_guessing_a_value() -> None:
    rng = np.random.default_rng(0)
    kinds = [*biographies.CHOICES.values()]
    guesses = [len(kinds[rng.integers(len(kinds))]) for _ in range(20_000)]
    hits = np.mean([rng.integers(n) == 0 for n in guesses])
    assert biographies.chance() == pytest.approx(hits, abs=0.005)


def test_too_short_a_length_is_refused_with_the_numbers() -> None:
    with pytest.raises(TooShort, match=r"multi_document_qa length is 400; it must hold 2 shots an"):
        make(400)


def test_more_biographies_than_names_are_refused() -> None:
    with pytest.raises(DataError, match=r"needs \d+ biographies; there are \d+ names"):
        biographies._random_names(10**6, np.random.default_rng(0))


@pytest.mark.parametrize(("count", "most"), [(16, 4), (17, 5), (25, 5)])
def test_people_share_as_few_names_as_there_are_in_a_square_of_them(count: int, most: int) -> None:
    names = biographies._random_names(count, np.random.default_rng(0))
    assert len({name.split()[0] for name in names}) <= most
    assert len(set(names)) == count
    many = biographies._random_names(count * 1000, np.random.default_rng(0))
    assert len(set(many)) == count * 1000
