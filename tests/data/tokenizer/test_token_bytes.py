"""Bytes of each token, against the places in the text that the package tokenizers names."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizer_families
from tokenizers import Tokenizer, decoders

from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.tokenizer.token_bytes import gives_back

TEXT = (
    "The rope is laid in the long walk, yarn upon yarn; don't you know? Füße, naïve café.\n"
    "Привет, мир! 敏捷的棕色狐狸跳过了懒狗。東京は日本の首都です。안녕하세요 🙂👍🏽\n"
    "def lay(yarns):\n    return [twist(x) for x in yarns]  # 2026-11-29, 1,000,000 yards\n"
) * 3
BYTE_LEVEL = ("gpt2", "llama3", "qwen2", "deepseek", "o200k", "digits")


def load(folder: Path, family: str) -> tokenizers.RunTokenizer:
    (folder / "tokenizer.json").write_text(tokenizer_families.tokenizer_json(family))
    return tokenizers.load(str(folder))


@pytest.mark.parametrize("family", BYTE_LEVEL)
def test_bytes_are_those_between_the_tokens_places_in_the_text(tmp_path: Path, family: str) -> None:
    tokenizer = load(tmp_path, family)
    encoding = tokenizer.backend.encode(TEXT, add_special_tokens=False)
    counts = tokenizers.byte_counter(tokenizer)(np.array(encoding.ids))
    assert counts is not None and counts.sum() == len(TEXT.encode())
    for (start, end), count in zip(encoding.offsets, counts.tolist(), strict=True):
        part = TEXT[start:end]
        if part.isascii():
            assert count == len(part)
        else:  # several tokens may share the bytes of one letter
            assert 1 <= count <= len(part.encode())


def test_a_window_inside_a_text_has_the_bytes_of_its_tokens(tmp_path: Path) -> None:
    """It begins inside a word and inside a letter, so its own text is split in another way."""
    tokenizer = load(tmp_path, "llama3")
    ids = np.array(tokenizer.backend.encode(TEXT, add_special_tokens=False).ids)
    count_bytes = tokenizers.byte_counter(tokenizer)
    whole = count_bytes(ids)
    assert whole is not None
    for start in range(0, 40, 3):
        part = count_bytes(ids[start:-7])
        assert part is not None and part.tolist() == whole[start:-7].tolist()


def test_a_space_that_decoding_drops_is_a_byte(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, "sentencepiece_bpe")
    ids = np.array(tokenizer.backend.encode(TEXT, add_special_tokens=False).ids)
    counts = tokenizers.byte_counter(tokenizer)(ids)
    assert counts is not None and counts.sum() == len(f" {TEXT}".encode())


def test_bytes_are_not_known_where_the_tokenizer_does_not_give_its_ids_back(tmp_path: Path) -> None:
    """A decoder that joins words loses spaces."""
    backend = Tokenizer.from_str(tokenizer_families.tokenizer_json("llama3"))
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(" ", "")])  # type: ignore[assignment]
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = tokenizers.load(str(tmp_path))
    ids = np.array(tokenizer.backend.encode(TEXT, add_special_tokens=False).ids)
    assert tokenizers.byte_counter(tokenizer)(ids) is None


@pytest.mark.parametrize(
    ("again", "expected"),
    [
        ([*range(40)], True),
        ([90, *range(4, 36), 91, 92], True),
        ([*range(20), 99, *range(21, 40)], False),
        ([], False),
    ],
)
def test_only_the_ends_of_a_text_may_be_split_in_another_way(again: Any, expected: bool) -> None:
    assert gives_back(np.arange(40), np.array(again, np.int64)) is expected
