"""The same held-out text for another tokenizer: the documents' own text is the oracle."""

from typing import Any

import numpy as np
import pytest

from ropewalk.conf.errors import DataError
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import BoundaryTokens, HeldoutText, Store
from ropewalk.data.tokenizer import RunTokenizer, text_encoder
from ropewalk.eval.measure.other_tokenizer import OtherTokenizer

TEXTS = [
    "Ein Seil wird in der langen Reeperbahn gedreht; größer, stärker, länger. " * 6,
    "лён и пенька 麻绳 " * 9,
    "short",
]
LENGTH = 40


@pytest.fixture(scope="module")
def pair() -> tuple[RunTokenizer, RunTokenizer]:
    return tokenizers.train(TEXTS[:1] * 20, 300), tokenizers.train(TEXTS[1:2] * 20, 340)


def heldout(tokenizer: RunTokenizer) -> HeldoutText:
    """The texts, and one that is not held out, in a store."""
    ids = [text_encoder(tokenizer)(text) for text in [*TEXTS, "of the training " * 30]]
    lengths = np.array([len(part) for part in ids])
    count = len(ids)
    store = Store(
        tokens=np.concatenate(ids),
        offset=np.cumsum([0, *lengths])[:-1],
        length=lengths,
        heldout=np.arange(count) < count - 1,
        key=np.arange(count, dtype=np.uint64),
        ids=[f"doc{n}" for n in range(count)],
        metadata={},
        fingerprint="f",
    )
    return HeldoutText({"a": store})


def decoded(tokenizer: RunTokenizer, ids: np.ndarray) -> str:
    return str(tokenizer.backend.decode(ids.tolist(), skip_special_tokens=False))


def test_the_documents_have_the_same_text(pair: tuple[RunTokenizer, RunTokenizer]) -> None:
    source, target = pair
    text = OtherTokenizer(source, target, "m").heldout(heldout(source), BoundaryTokens())
    (tokens,) = text.texts()
    assert decoded(target, tokens) == "".join(TEXTS)


def test_windows_begin_at_the_same_character(pair: tuple[RunTokenizer, RunTokenizer]) -> None:
    source, target = pair
    text, marks = heldout(source), BoundaryTokens(begin=7)
    windows = text.windows(LENGTH, 6, 3)
    made = OtherTokenizer(source, target, "m").windows(windows, text, marks, LENGTH)
    assert {w.start > 0 for w in windows} == {True, False} and len(made) > 2
    for window in made:
        (whole,) = (t for n, t in enumerate(TEXTS) if window.document == f"doc{n}")
        ids = text_encoder(source)(whole)
        before = decoded(source, ids[: window.start]).rstrip("\ufffd")
        own = decoded(target, window.ids[1:]).rstrip("\ufffd")
        assert len(window.ids) == LENGTH and window.ids[0] == 7
        assert whole.startswith(before) and whole[len(before) :].startswith(own) and own


def test_a_window_that_is_too_short_there_is_left_out(
    pair: tuple[RunTokenizer, RunTokenizer],
) -> None:
    source, target = pair
    text = heldout(source)
    windows = text.windows(LENGTH, 6, 1)
    made = OtherTokenizer(source, target, "m").windows(windows, text, BoundaryTokens(), 150)
    enough = [n for n, t in enumerate(TEXTS) if len(text_encoder(target)(t)) >= 150]
    assert [w.document for w in made] == [f"doc{n}" for n in enough] and len(made) < len(windows)


@pytest.mark.parametrize(("place", "rule"), [(0, "the run's own must give"), (1, "changes a held")])
def test_a_tokenizer_that_does_not_give_the_text_back_is_refused(
    pair: tuple[RunTokenizer, RunTokenizer], place: int, rule: str
) -> None:
    from tokenizers import normalizers

    lossy: Any = tokenizers.train(TEXTS[:1] * 20, 300)
    ids = heldout(lossy)
    lossy.backend.normalizer = normalizers.Replace("e", "x")
    both = [lossy if n == place else tokenizer for n, tokenizer in enumerate(pair)]
    text = ids if place == 0 else heldout(pair[0])
    with pytest.raises(DataError, match=rule):
        OtherTokenizer(both[0], both[1], "eval.models.m").heldout(text, BoundaryTokens())
