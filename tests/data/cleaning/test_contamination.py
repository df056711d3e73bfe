"""Held-out text in training text, against Python's sets of n-grams."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import in_memory, no_progress

from ropewalk.conf.errors import DataError
from ropewalk.data.cleaning import contamination
from ropewalk.data.cleaning.contamination import NgramSet
from ropewalk.data.tokens.corpus import Corpus
from ropewalk.data.tokens.store import Store

Ids = list[int]
NUMBER = itertools.count()  # no two stores are the same one


def store_of(documents: list[Ids], heldout: list[bool]) -> Store:
    return in_memory(documents, heldout, f"store {next(NUMBER)}")


def grams(text: Ids, n: int) -> list[tuple[int, ...]]:
    return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]


@st.composite
def corpora(draw: st.DrawFn) -> tuple[list[Ids], list[bool], list[bool]]:
    texts = draw(
        st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=30), min_size=1, max_size=10)
    )
    heldout = [draw(st.booleans()) for _ in texts]
    return texts, heldout, [not h and draw(st.booleans()) for h in heldout]


@settings(max_examples=80, deadline=None)
@given(corpus=corpora(), n=st.integers(1, 6), chunk=st.integers(1, 50), cut=st.integers(0, 10))
def test_shared_ngrams_equal_sets_of_tuples_for_any_chunk(
    corpus: tuple[list[Ids], list[bool], list[bool]], n: int, chunk: int, cut: int
) -> None:
    texts, heldout, training = corpus
    left = {g for t, h in zip(texts, heldout, strict=True) if h for g in grams(t, n)}
    right = {g for t, use in zip(texts, training, strict=True) if use for g in grams(t, n)}
    sides = [
        right if h else left if use else set() for h, use in zip(heldout, training, strict=True)
    ]
    expected = [sum(g in side for g in grams(t, n)) for t, side in zip(texts, sides, strict=True)]
    corpus = Corpus(
        {"a": store_of(texts[:cut], heldout[:cut]), "b": store_of(texts[cut:], heldout[cut:])}
    )
    assert (
        contamination.shared_ngrams(corpus, np.array(training), n, no_progress, chunk).tolist()
        == expected
    )


@settings(max_examples=60, deadline=None)
@given(
    members=st.lists(st.integers(0, 40), max_size=30),
    queried=st.lists(st.integers(0, 40), max_size=30),
    bits=st.sampled_from([0, 58]),
)
def test_a_set_of_hashes_equals_pythons_set(
    members: list[int], queried: list[int], bits: int
) -> None:
    """Near 0 all share one slot of the table; near 2**64 they spread."""
    known, queries = (np.array(x, dtype=np.uint64) << np.uint64(bits) for x in (members, queried))
    ngrams = NgramSet([known[:3], known[3:]])
    indices, positions = ngrams.find(queries)
    assert indices.tolist() == [i for i, value in enumerate(queried) if value in set(members)]
    assert ngrams.hashes[positions].tolist() == queries[indices].tolist()
    assert ngrams.hashes.tolist() == sorted(set(known.tolist()))


def random_ids(length: int, seed: int) -> Ids:
    rng = random.Random(seed)
    return [rng.randrange(5000) for _ in range(length)]


def shared_ngrams(corpus: Corpus, training: np.ndarray) -> np.ndarray:
    return contamination.shared_ngrams(corpus, training, 32, no_progress)


def planted() -> tuple[Corpus, np.ndarray]:
    """Held-out documents of `a`, copied in `b`: all of 0 to 1, 100 of 1,000 tokens of 2 to 0."""
    leak, quoted = random_ids(400, 0), random_ids(1000, 1)
    a = store_of([leak, random_ids(500, 2), quoted, random_ids(20, 3)], [True, False, True, True])
    b = store_of(
        [
            [*random_ids(900, 4), *quoted[300:400]],
            [*random_ids(100, 5), *leak, *random_ids(100, 6)],
        ],
        [False, False],
    )
    return Corpus({"a": a, "b": b}), np.array([False, True, False, False, True, True])


def test_planted_leak_is_found_on_both_sides() -> None:
    corpus, training = planted()
    fraction = contamination.shared_fraction(corpus, shared_ngrams(corpus, training), 32)
    section = contamination.ledger_section(corpus, training, fraction, 32, 0.2)
    assert section["heldout"] == {
        "documents": 3,
        "too_short": 1,
        "touched": 2,
        "worst": [
            {"source": "a", "document": "0.txt", "share": 1.0},
            {"source": "a", "document": "2.txt", "share": round(69 / 969, 4)},
        ],
        "dirty": [{"source": "a", "document": "0.txt", "share": 1.0}],
    }
    assert section["training"] == {
        "documents": 3,
        "contaminated": 1,
        "contaminated_tokens": 600,
        "worst": [
            {"source": "b", "document": "1.txt", "share": round(369 / 569, 4)},
            {"source": "b", "document": "0.txt", "share": round(69 / 969, 4)},
        ],
    }


def test_training_documents_that_the_mixture_may_not_use_do_not_count() -> None:
    corpus, training = planted()
    training[5] = False
    fraction = contamination.shared_fraction(corpus, shared_ngrams(corpus, training), 32)
    assert fraction[0] == 0 and fraction[5] == 0 and fraction[2] == pytest.approx(69 / 969)


def test_the_order_of_the_sources_does_not_change_the_counts() -> None:
    corpus, training = planted()
    reversed_corpus = Corpus(dict(reversed(corpus.stores.items())))
    reversed_training = np.concatenate(list(reversed(list(corpus.by_source(training).values()))))
    first = corpus.by_source(shared_ngrams(corpus, training))
    second = reversed_corpus.by_source(shared_ngrams(reversed_corpus, reversed_training))
    assert {n: part.tolist() for n, part in first.items()} == {
        n: part.tolist() for n, part in second.items()
    }


def test_error_names_the_worst_document() -> None:
    corpus, training = planted()
    fraction = contamination.shared_fraction(corpus, shared_ngrams(corpus, training), 32)
    with pytest.raises(
        DataError,
        match=r"^data\.contamination\.action is error; .* 0\.txt of source a has 100% .*\(2 doc",
    ):
        contamination.refuse_contaminated(corpus, fraction, 32, 0.2)
    contamination.refuse_contaminated(corpus, np.minimum(fraction, 0.2), 32, 0.2)


def test_without_held_out_text_no_ngram_is_shared() -> None:
    corpus = Corpus({"a": store_of([random_ids(100, 0), random_ids(100, 0)], [False, False])})
    counts = shared_ngrams(corpus, np.ones(2, bool))
    section = contamination.ledger_section(
        corpus, np.ones(2, bool), contamination.shared_fraction(corpus, counts, 32), 32, 0.2
    )
    assert counts.tolist() == [0, 0] and (
        section["heldout"]["documents"],
        section["heldout"]["dirty"],
    ) == (0, [])


def test_a_document_at_the_limit_itself_is_clean() -> None:
    corpus, training = planted()
    fraction = np.where(training, 0.25, 0.0)
    at_limit = contamination.ledger_section(corpus, training, fraction, 32, 0.25)
    above = contamination.ledger_section(corpus, training, fraction, 32, 0.2499)
    assert at_limit["training"]["contaminated"] == 0
    assert above["training"]["contaminated"] == 3
