"""Long texts in parts keep their ids, or are not cut. Oracle: the tokenizer on full texts."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stores import stored
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

from ropewalk.data.sources import Document
from ropewalk.data.tokens import long_texts
from ropewalk.data.tokens.encode import encode_with
from ropewalk.data.tokens.long_texts import LongTextSplitter, cut_points

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


def character_tokenizer(*, prefix: str = "") -> Tokenizer:
    """A tokenizer of characters that adds `prefix` to each text, as SentencePiece does."""
    characters = sorted(set("".join(WORDS) + " ▁"))
    tokenizer = Tokenizer(models.WordLevel({s: i for i, s in enumerate(characters)}, unk_token=" "))
    if prefix:
        tokenizer.normalizer = normalizers.Prepend(prefix)  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # type: ignore[assignment]
    return tokenizer


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that are small enough for a test."""
    for name, value in {
        "PART": 500,
        "SAMPLE": 3000,
        "SAMPLE_PART": 50,
        "CONTEXT": 40,
        "ENOUGH_CUTS": 64,
    }.items():
        monkeypatch.setattr(long_texts, name, value)


@given(st.text("aé日1\n \r", max_size=60), st.integers(1, 20))
def test_a_cut_is_after_one_newline_between_letters_and_far_from_others(
    text: str, distance: int
) -> None:
    cuts = list(cut_points(text, distance))
    borders = [0, *cuts, len(text)]
    assert (
        all(high - low >= distance for low, high in zip(borders, borders[1:], strict=False))
        or not cuts
    )
    for cut in cuts:
        assert text[cut - 2].isalpha() and text[cut - 1] == "\n" and text[cut].isalpha()


@given(st.text("ab\n ", max_size=40))
def test_no_cut_is_missed_at_distance_one(text: str) -> None:
    legal = [
        i + 1
        for i in range(1, len(text) - 1)
        if text[i] == "\n" and text[i - 1] in "ab" and text[i + 1] in "ab"
    ]
    assert list(cut_points(text, 1)) == legal


def test_byte_level_ids_of_parts_equal_those_of_the_full_text(tokenizer: Any, short: None) -> None:
    encode = encode_with(tokenizer.backend_tokenizer)
    splitter = LongTextSplitter(encode)
    for seed in range(5):
        text = prose(20_000, seed)
        parts = splitter.split(text)
        assert len(parts) > 10 and "".join(parts) == text
        assert (
            np.concatenate(encode(parts)).tolist() == tokenizer.backend_tokenizer.encode(text).ids
        )
    metadata = splitter.metadata()
    assert metadata["same_ids"] is True
    assert metadata["compared"] > 20 and metadata["cuts"] > 50


def test_a_text_that_is_short_or_without_a_cut_is_not_split(tokenizer: Any, short: None) -> None:
    splitter = LongTextSplitter(encode_with(tokenizer.backend_tokenizer))
    for text in (prose(900)[:999], "1\n2\n" * 2000, "rope\n\n" * 2000):
        assert splitter.split(text) == [text]
    assert splitter.metadata() == {"compared": 0, "same_ids": None, "cuts": 0}


def test_a_tokenizer_that_adds_a_prefix_gets_full_texts(short: None) -> None:
    splitter, text = LongTextSplitter(encode_with(character_tokenizer(prefix="▁"))), prose(20_000)
    assert splitter.split(text) == [text] and splitter.split(text[1:]) == [text[1:]]
    assert splitter.metadata()["same_ids"] is False and splitter.metadata()["cuts"] == 0
    assert (
        len(LongTextSplitter(encode_with(character_tokenizer())).split(text)) > 10
    )  # the same tokenizer without it


def test_a_cut_that_changes_ids_after_the_sample_is_not_used(short: None) -> None:
    """A token that absorbs the newline before it occurs after the sample: every cut is compared."""
    inner = character_tokenizer()
    inner.add_tokens([AddedToken("zz", lstrip=True)])
    encode = encode_with(inner)
    text = prose(4000) + "rope yarn\nzz walk " * 500 + prose(4000)
    splitter = LongTextSplitter(encode)
    parts = splitter.split(text)
    assert np.concatenate(encode(parts)).tolist() == inner.encode(text).ids
    assert len(parts) > 3 and not any(p.startswith("zz") for p in parts)
    assert any(text[cut : cut + 2] == "zz" for cut in cut_points(text, long_texts.PART))


def test_the_bytes_of_a_store_do_not_depend_on_whether_texts_were_cut(
    tokenizer: Any, tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [Document(str(i), prose(n, i)) for i, n in enumerate([40_000, 100, 3000])]
    encode = encode_with(tokenizer.backend_tokenizer)
    split = stored(tmp_path / "cut", documents, encode=encode)
    monkeypatch.setattr(long_texts, "PART", 1 << 40)
    unsplit = stored(tmp_path / "whole", documents, encode=encode)
    assert split.metadata["long_texts"]["cuts"] > 20 and unsplit.metadata["long_texts"]["cuts"] == 0
    for name in ("documents.arrow", "00000/documents.arrow", "00000/tokens.bin"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_document_of_300_000_tokens(tokenizer: Any, tmp_path: Path) -> None:
    """At real sizes: the same ids as in one call."""
    text = prose(1_400_000)
    opened = stored(
        tmp_path / "new", [Document("a", text)], encode=encode_with(tokenizer.backend_tokenizer)
    )
    assert opened.length[0] > 300_000 and opened.metadata["long_texts"]["cuts"] >= 3
    assert opened.document(0).tolist() == tokenizer.backend_tokenizer.encode(text).ids


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(("length", "compared"), [(998, False), (1000, True)])
def test_a_text_shorter_than_two_parts_is_not_encoded_to_be_compared(
    length: int, compared: bool
) -> None:
    encoded: list[str] = []

    def encode(texts: list[str]) -> list[np.ndarray]:
        encoded.extend(texts)
        return [np.frombuffer(text.encode(), dtype=np.uint8) for text in texts]

    text = "a\n" * (length // 2)
    assert "".join(LongTextSplitter(encode).split(text)) == text
    assert bool(encoded) == compared
