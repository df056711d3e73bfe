"""RULER's sizes and counts as its paper and scripts have them (arXiv 2404.06654, appendix B)."""

import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.eval_ruler import RulerConfig
from ropewalk.eval.ruler import build, inputs, words
from ropewalk.eval.ruler.configurations import ALL, chosen
from ropewalk.eval.ruler.draft import CannotFit, Draw
from ropewalk.eval.ruler.frequency import FrequentWords
from ropewalk.eval.ruler.haystacks import Prose
from ropewalk.eval.ruler.inputs import Inputs
from ropewalk.eval.ruler.wording import OWN

# tokens of the answer, score, haystack, kinds of key and value, keys, asked keys, values a key
TABLE = """
niah_single_1    128 all noise   words numbers 1 1 1
niah_single_2    128 all prose   words numbers 1 1 1
niah_single_3    128 all prose   words uuids   1 1 1
niah_multikey_1  128 all prose   words numbers 4 1 1
niah_multikey_2  128 all needles words numbers 1 1 1
niah_multikey_3  128 all needles uuids uuids   1 1 1
niah_multivalue  128 all prose   words numbers 1 1 4
niah_multiquery  128 all prose   words numbers 4 4 1
vt                30 all noise   words numbers 1 1 1
cwe              120 all -       words numbers 1 1 1
fwe               50 all -       words numbers 1 1 1
qa_1              32 any -       words numbers 1 1 1
qa_2              32 any -       words numbers 1 1 1
"""
WORDS = words.generated()
INPUTS = Inputs(RulerConfig(), OWN, WORDS, None, {})


def draw(length: int, exact: bool = True, number: int = 0) -> Draw:
    return Draw(exact, length, 0, 1, number)


def items(text: str) -> list[str]:
    return re.findall(r"\d+\. (\S+)", text)


def test_the_configurations_are_those_of_the_paper() -> None:
    rows = [line.split() for line in TABLE.strip().splitlines()]
    assert [row[0] for row in rows] == [*ALL]
    for name, budget, score, haystack, keys, values, *counts in rows:
        one = ALL[name]
        assert (one.budget, one.every) == (int(budget), score == "all"), name
        assert (one.haystack or "-", one.keys, one.values) == (haystack, keys, values), name
        assert [one.inserted, one.asked, one.values_each] == [*map(int, counts)], name
    assert [one.name for one in chosen(["vt", "smoke", "qa_1"])] == ["niah_single_1", "vt", "qa_1"]


@pytest.mark.parametrize(("length", "common", "other"), [(4096, 30, 3), (4095, 6, 1)])
def test_common_words_recur_thirty_times_and_others_three(
    length: int, common: int, other: int
) -> None:
    """Below 4,096 tokens six times and once."""
    for exact in (True, False):
        one = build._bare(ALL["cwe"], INPUTS, draw(length, exact))
        size = 10 * common + 7 * other if exact else 17  # 7 other words
        counts = Counter(items(one.body(size).context))
        assert Counter(counts.values()) == {common: 10, other: 7}
        assert {word for word, count in counts.items() if count == common} == {*one.references}
        assert one.least == (10 * common + 10 * other if exact else 20)
    if other == 3:  # one more item is the first of an eighth word
        exact_one = build._bare(ALL["cwe"], INPUTS, draw(length))
        more = Counter(items(exact_one.body(322).context))
        assert Counter(more.values()) == {30: 10, 3: 7, 1: 1}


@pytest.mark.parametrize(
    ("length", "common", "other", "different"), [(4096, 10, 3, 40), (4095, 3, 1, 20)]
)
def test_the_example_of_a_list_is_short(
    length: int, common: int, other: int, different: int
) -> None:
    for exact in (True, False):
        example = build._list(INPUTS, draw(length, exact))
        counts = Counter(items(example.body.context))
        assert Counter(counts.values()) == {common: 10, other: different - 10}
        assert example.border == "\n" and items(example.answer) == [
            word for word in items(example.answer) if counts[word] == common
        ]


def test_frequencies_of_coded_words_fall_with_the_square_of_their_rank() -> None:
    """100 / 1.6449 = 60.8, a quarter of it 15.2, a ninth 6.8, a 16th 3.8, a 25th 2.4."""
    one = FrequentWords(OWN, draw(4096, exact=False), 5)
    context = Counter(one.body(100).context.split())
    assert [context[word] for word in one.vocabulary] == [60, 15, 6, 3, 2]
    assert (one.vocabulary[0], one.references) == ("...", tuple(one.vocabulary[1:4]))
    assert all(len(word) == 6 and word.islower() for word in one.vocabulary[1:])
    assert one.least == 74  # 1.6449 / (1/16 - 1/25) = 73.1
    with pytest.raises(CannotFit, match="4 different words, and needs 5"):
        FrequentWords(OWN, draw(4096), 4)
    made = build._bare(ALL["fwe"], INPUTS, draw(4096))
    assert isinstance(made, FrequentWords) and len(made.vocabulary) == (4096 - 50) // 50


def test_a_size_changes_by_rulers_steps() -> None:
    steps = {(name, n): build.step(ALL[name], n) for name in ALL for n in (4095, 4096)}
    for (name, length), step in steps.items():
        if ALL[name].haystack == "prose":
            assert step == 500
        elif name.startswith("niah"):
            assert step == (25 if length == 4096 else 5)
        elif name == "fwe":
            assert step == length // 32
        else:
            assert step == 10


def test_only_tracking_and_lists_have_an_example_of_their_own() -> None:
    assert {name for name in ALL if build.shots(ALL[name], None)} == {"vt", "cwe"}
    assert build.shots(ALL["vt"], 0) == 0 and build.shots(ALL["vt"], None) == 1
    assert build.shots(ALL["qa_1"], 3) == 3


def test_examples_are_draws_that_no_sample_has() -> None:
    """Of each sample its own; two shots differ."""
    for name in ("vt", "niah_single_1", "fwe"):
        texts = [
            build._example(ALL[name], INPUTS, draw(4096, number=n), shot, len).text
            for n in (0, 1)
            for shot in (0, 1)
        ]
        assert len({*texts}) == 4, name
        assert all(text.endswith("\n\n") for text in texts)


def test_rulers_example_of_tracking_is_fitted_to_500_tokens_in_steps_of_five_lines() -> None:
    rule = Inputs(RulerConfig(mode="ruler"), OWN, WORDS, None, {})
    for each in (8, 10, 1000):  # characters a token: of a line 91, of the rest about 500

        def count(text: str, each: int = each) -> int:
            return len(text) // each

        example = build._example(ALL["vt"], rule, draw(4096, False), 0, count)
        lines = example.body.context.count(OWN.noise)
        assert lines % 5 == 0 and lines >= 10
        if each < 1000:
            body = count(example.text)
            assert body <= 500 + 1 < body + 5 * (len(OWN.noise) + 1) // each + 2


def test_what_a_configuration_reads_is_named() -> None:
    """Words of keys and lists; a haystack by source and hash, or by its kind."""
    prose = Prose("book", ("One.",))
    data = SimpleNamespace(source="squad", hash="h")
    made = Inputs(RulerConfig(), OWN, WORDS, prose, {"squad": data})  # type: ignore[dict-item]
    with_words = {name for name in ALL if made.words_of(ALL[name]) != ("", "")}
    assert with_words == {
        *(name for name in ALL if name.startswith("niah") and name != "niah_multikey_3"),
        "cwe",
    }
    assert made.words_of(ALL["cwe"]) == (WORDS.source, WORDS.hash)
    assert made.haystack_of(ALL["qa_1"]) == ("squad", "h")
    assert made.haystack_of(ALL["niah_single_2"]) == ("book", prose.hash)
    assert made.haystack_of(ALL["niah_single_1"]) == ("noise", "")
    assert made.haystack_of(ALL["fwe"]) == ("", "")


def test_the_protocol_is_rulers_only_with_its_own_texts() -> None:
    def protocol(**settings: Any) -> str:
        return Inputs(RulerConfig(**settings), OWN, WORDS, None, {}).protocol

    assert protocol(wording="x") == "ruler_exact"
    assert protocol(mode="ruler", trailing_space=True) == "ruler"
    assert protocol(mode="ruler", trailing_space=False) == "ruler, no trailing space"
    assert protocol(mode="ruler", trailing_space=True, wording="x") == "ruler, other wording"


def test_prose_is_four_times_the_longest_length_over_the_sources() -> None:
    """4 x 10 / 3, rounded up: 14 tokens of each."""
    fillers = [np.arange(100), np.arange(200, 300), np.arange(400, 405)]
    texts = inputs.heldout_texts(fillers, lambda ids: " ".join(map(str, ids)), 10)
    assert [len(text.split()) for text in texts] == [14, 14, 5]
    assert texts[1].split()[0] == "200" and inputs.heldout_texts([], str, 10) == []
    assert inputs.heldout_texts([np.arange(100)], lambda ids: f"{len([*ids])}", 10) == ["40"]


def test_a_file_of_words_has_a_hundred_different_ones(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\n".join([*map(str, range(99)), "5", "", " 7 "]))
    with pytest.raises(ConfigError, match="must have 100 different words.* has 99"):
        words.of_file(str(path))
    path.write_text("\n".join(map(str, range(100))))
    found = words.find(str(path))
    assert len(found.all) == len(found.nouns) == 100 and found.source == "words.txt"
    assert found.nouns == found.adjectives == tuple(map(str, range(100)))
    assert (len(WORDS.adjectives), len(WORDS.nouns)) == (1024, 8192 - 1024)


def test_solved_examples_are_short() -> None:
    """12 sentences of noise with one needle, or 80 coded words of twelve."""
    noise = build._example(ALL["niah_single_1"], INPUTS, draw(4096), 0, len).body.context
    assert noise.count(".") == 12 + 1
    coded = Counter(build._example(ALL["fwe"], INPUTS, draw(4096), 0, len).body.context.split())
    assert sum(coded.values()) == 80 and len(coded) <= 12
