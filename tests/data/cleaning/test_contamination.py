"""Held-out text in training text, held against Python's sets of n-grams."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.conf.errors import DataError
from ropewalk.data.cleaning import contamination
from ropewalk.data.cleaning.contamination import Grams
from ropewalk.data.cleaning.documents import Texts
from ropewalk.data.tokens.store import Store

Text = list[int]
NUMBER = itertools.count()  # no two stores are the same one


def store_of(texts: list[Text], heldout: list[bool]) -> Store:
    lengths = np.array([len(t) for t in texts], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    tokens, count = (
        np.array([token for text in texts for token in text], dtype=np.uint16),
        len(texts),
    )
    ids, key = [f"{i}.txt" for i in range(count)], np.arange(count, dtype=np.uint64)
    return Store(
        tokens,
        offsets,
        lengths,
        np.array(heldout, dtype=bool),
        key,
        ids,
        {},
        f"store {next(NUMBER)}",
    )


def grams(text: Text, n: int) -> list[tuple[int, ...]]:
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


@st.composite
def corpora(draw: st.DrawFn) -> tuple[list[Text], list[bool], list[bool]]:
    texts = draw(
        st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=30), min_size=1, max_size=10)
    )
    held = [draw(st.booleans()) for _ in texts]
    return texts, held, [not h and draw(st.booleans()) for h in held]


@settings(max_examples=80, deadline=None)
@given(corpus=corpora(), n=st.integers(1, 6), chunk=st.integers(1, 50), cut=st.integers(0, 10))
def test_hits_are_those_of_sets_of_tuples_for_any_chunk(
    corpus: tuple[list[Text], list[bool], list[bool]], n: int, chunk: int, cut: int
) -> None:
    texts, held, training = corpus
    left = {g for t, h in zip(texts, held, strict=True) if h for g in grams(t, n)}
    right = {g for t, use in zip(texts, training, strict=True) if use for g in grams(t, n)}
    sides = [right if h else left if use else set() for h, use in zip(held, training, strict=True)]
    wanted = [sum(g in side for g in grams(t, n)) for t, side in zip(texts, sides, strict=True)]
    row = Texts({"a": store_of(texts[:cut], held[:cut]), "b": store_of(texts[cut:], held[cut:])})
    assert contamination.hits(row, np.array(training), n, chunk).tolist() == wanted


@settings(max_examples=60, deadline=None)
@given(
    held=st.lists(st.integers(0, 40), max_size=30),
    asked=st.lists(st.integers(0, 40), max_size=30),
    bits=st.sampled_from([0, 58]),
)
def test_a_set_of_hashes_answers_as_pythons_does(
    held: list[int], asked: list[int], bits: int
) -> None:
    """Near 0 all share one place of the table; near 2**64 they spread."""
    known, questions = (np.array(x, dtype=np.uint64) << np.uint64(bits) for x in (held, asked))
    grams = Grams([known[:3], known[3:]])
    at, places = grams.find(questions)
    assert at.tolist() == [i for i, value in enumerate(asked) if value in set(held)]
    assert grams.hashes[places].tolist() == questions[at].tolist()
    assert grams.hashes.tolist() == sorted(set(known.tolist()))


def words(length: int, seed: int) -> Text:
    rng = random.Random(seed)
    return [rng.randrange(5000) for _ in range(length)]


def planted() -> tuple[Texts, np.ndarray]:
    """`a` holds 0 (held out), which stands whole in 1 of `b`; 2 of `a` (held out) has 100 of its 1,000 tokens in 0 of `b`."""
    leak, quoted = words(400, 0), words(1000, 1)
    a = store_of([leak, words(500, 2), quoted, words(20, 3)], [True, False, True, True])
    b = store_of(
        [[*words(900, 4), *quoted[300:400]], [*words(100, 5), *leak, *words(100, 6)]],
        [False, False],
    )
    return Texts({"a": a, "b": b}), np.array([False, True, False, False, True, True])


def test_planted_leak_is_found_on_both_sides() -> None:
    texts, training = planted()
    share = contamination.shares(texts, contamination.hits(texts, training, 32), 32)
    told = contamination.account(texts, training, share, 32, 0.2)
    assert told["heldout"] == {
        "documents": 3,
        "too_short": 1,
        "touched": 2,
        "worst": [
            {"source": "a", "document": "0.txt", "share": 1.0},
            {"source": "a", "document": "2.txt", "share": round(69 / 969, 4)},
        ],
        "dirty": [{"source": "a", "document": "0.txt", "share": 1.0}],
    }
    assert told["training"] == {
        "documents": 3,
        "contaminated": 1,
        "contaminated_tokens": 600,
        "worst": [
            {"source": "b", "document": "1.txt", "share": round(369 / 569, 4)},
            {"source": "b", "document": "0.txt", "share": round(69 / 969, 4)},
        ],
    }


def test_training_documents_that_the_mixture_may_not_use_do_not_count() -> None:
    texts, training = planted()
    training[5] = False
    share = contamination.shares(texts, contamination.hits(texts, training, 32), 32)
    assert share[0] == 0 and share[5] == 0 and share[2] == pytest.approx(69 / 969)


def test_order_of_the_sources_changes_nothing_but_the_order() -> None:
    texts, training = planted()
    turned = Texts(dict(reversed(texts.stores.items())))
    there = np.concatenate(list(reversed(list(texts.split(training).values()))))
    one = texts.split(contamination.hits(texts, training, 32))
    two = turned.split(contamination.hits(turned, there, 32))
    assert {n: part.tolist() for n, part in one.items()} == {
        n: part.tolist() for n, part in two.items()
    }


def test_error_names_the_worst_document() -> None:
    texts, training = planted()
    share = contamination.shares(texts, contamination.hits(texts, training, 32), 32)
    with pytest.raises(
        DataError,
        match=r"^data\.contamination\.action is error; .* 0\.txt of source a has 100% .*\(2 doc",
    ):
        contamination.refuse(texts, share, 32, 0.2)
    contamination.refuse(texts, np.minimum(share, 0.2), 32, 0.2)


def test_nothing_held_out_means_nothing_found() -> None:
    texts = Texts({"a": store_of([words(100, 0), words(100, 0)], [False, False])})
    found = contamination.hits(texts, np.ones(2, bool), 32)
    told = contamination.account(
        texts, np.ones(2, bool), contamination.shares(texts, found, 32), 32, 0.2
    )
    assert found.tolist() == [0, 0] and (
        told["heldout"]["documents"],
        told["heldout"]["dirty"],
    ) == (0, [])
