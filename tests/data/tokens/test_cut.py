"""Long texts in parts: the ids are those of the whole text, or the text is not cut. The oracle is the tokenizer on whole texts."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import stored
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.sources import Document
from ropewalk.data.tokens import cut
from ropewalk.data.tokens.cut import Cutter, places
from ropewalk.data.tokens.encode import encode_with

WORDS = [
    "rope",
    "yarn",
    "walk",
    "é",
    "x = 1",
    "12345",
    "\n",
    "\n\n",
    "\n",
    " \n ",
    "\r\n",
    "strand",
    "\n",
    "日本",
]


def prose(length: int, seed: int = 0) -> str:
    """Text with newlines of all kinds, about `length` characters."""
    rng = random.Random(seed)
    return "".join(rng.choice(WORDS) + rng.choice(["", " "]) for _ in range(length // 4))


def words(*, before: str = "") -> Tokenizer:
    """A tokenizer of characters; `before` is put in front of each text, as SentencePiece does."""
    signs = sorted(set("".join(WORDS) + " ▁"))
    made = Tokenizer(models.WordLevel({s: i for i, s in enumerate(signs)}, unk_token=" "))
    if before:
        made.normalizer = normalizers.Prepend(before)  # type: ignore[assignment]
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # type: ignore[assignment]
    return made


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of a size that a test can look at."""
    for name, value in {"PART": 500, "SAMPLE": 3000, "APART": 50, "NEAR": 40, "ENOUGH": 64}.items():
        monkeypatch.setattr(cut, name, value)


@given(st.text("aé日1\n \r", max_size=60), st.integers(1, 20))
def test_a_place_is_after_one_newline_between_letters_and_far_from_others(
    text: str, apart: int
) -> None:
    found = list(places(text, apart))
    borders = [0, *found, len(text)]
    assert (
        all(high - low >= apart for low, high in zip(borders, borders[1:], strict=False))
        or not found
    )
    for at in found:
        assert text[at - 2].isalpha() and text[at - 1] == "\n" and text[at].isalpha()


@given(st.text("ab\n ", max_size=40))
def test_no_place_is_missed_when_none_is_too_near(text: str) -> None:
    legal = [
        i + 1
        for i in range(1, len(text) - 1)
        if text[i] == "\n" and text[i - 1] in "ab" and text[i + 1] in "ab"
    ]
    assert list(places(text, 1)) == legal


def test_byte_level_ids_are_those_of_the_whole_text(tokenizer: Any, short: None) -> None:
    encode = encode_with(tokenizers.backend(tokenizer))
    cutter = Cutter(encode)
    for seed in range(5):
        text = prose(20_000, seed)
        parts = cutter.parts(text)
        assert len(parts) > 10 and "".join(parts) == text
        assert (
            np.concatenate(encode(parts)).tolist() == tokenizers.backend(tokenizer).encode(text).ids
        )
    facts = cutter.facts()
    assert facts["same_ids"] is True and facts["compared"] > 20 and facts["cuts"] > 50


def test_text_that_is_not_long_or_has_no_place_stays_whole(tokenizer: Any, short: None) -> None:
    cutter = Cutter(encode_with(tokenizers.backend(tokenizer)))
    for text in (prose(900)[:999], "1\n2\n" * 2000, "rope\n\n" * 2000):
        assert cutter.parts(text) == [text]
    assert cutter.facts() == {"compared": 0, "same_ids": None, "cuts": 0}


def test_a_tokenizer_that_begins_a_text_otherwise_is_given_whole_texts(short: None) -> None:
    cutter, text = Cutter(encode_with(words(before="▁"))), prose(20_000)
    assert cutter.parts(text) == [text] and cutter.parts(text[1:]) == [text[1:]]
    assert cutter.facts()["same_ids"] is False and cutter.facts()["cuts"] == 0
    assert len(Cutter(encode_with(words())).parts(text)) > 10  # the same tokenizer without it


def test_a_cut_that_the_sample_does_not_foresee_is_left_out(short: None) -> None:
    """A token that takes the newline before it stands beyond the sample: each cut is compared by itself."""
    made = words()
    made.add_tokens([AddedToken("zz", lstrip=True)])
    encode = encode_with(made)
    text = prose(4000) + "rope yarn\nzz walk " * 500 + prose(4000)
    cutter = Cutter(encode)
    parts = cutter.parts(text)
    assert np.concatenate(encode(parts)).tolist() == made.encode(text).ids
    assert len(parts) > 3 and not any(p.startswith("zz") for p in parts)
    assert any(text[at : at + 2] == "zz" for at in places(text, cut.PART))


def test_the_bytes_of_a_store_do_not_depend_on_whether_texts_were_cut(
    tokenizer: Any, tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [Document(str(i), prose(n, i)) for i, n in enumerate([40_000, 100, 3000])]
    encode = encode_with(tokenizers.backend(tokenizer))
    parted = stored(tmp_path / "cut", documents, encode=encode)
    monkeypatch.setattr(cut, "PART", 1 << 40)
    whole = stored(tmp_path / "whole", documents, encode=encode)
    assert parted.facts["long_texts"]["cuts"] > 20 and whole.facts["long_texts"]["cuts"] == 0
    for name in ("documents.arrow", "00000/documents.arrow", "00000/tokens.bin"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_document_of_300_000_tokens(tokenizer: Any, tmp_path: Path) -> None:
    """At the sizes of real use; the same ids as in one call."""
    text = prose(1_400_000)
    opened = stored(
        tmp_path / "new", [Document("a", text)], encode=encode_with(tokenizers.backend(tokenizer))
    )
    assert opened.length[0] > 300_000 and opened.facts["long_texts"]["cuts"] >= 3
    assert opened.document(0).tolist() == tokenizers.backend(tokenizer).encode(text).ids
