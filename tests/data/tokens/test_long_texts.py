"""Long texts in parts have the ids of the full text. Oracle: `tokenizers` on the full text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizer_families
from hard_texts import FAMILIES, hard_texts, prose
from stores import stored
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from ropewalk.data.sources import Document
from ropewalk.data.sources.long_text import LongText, Text
from ropewalk.data.tokens import long_texts
from ropewalk.data.tokens.encode import encode_in_order, encode_with
from ropewalk.data.tokens.locate import Locator
from ropewalk.data.tokens.long_texts import NO_CUT, Cut, NoCutError, find_cuts

SIZE = 2500
CUT_EVERYWHERE = {"gpt2", "roberta", "llama3", "deepseek", "words joined"}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts that are small enough for a test, and may grow to the full text."""
    for name, value in {"PART": 300, "CONTEXT": 60, "LIMIT": 1 << 14}.items():
        monkeypatch.setattr(long_texts, name, value)


def ids_in_parts(tokenizer: Tokenizer, text: Text) -> tuple[list[int], list[Cut]]:
    cuts = find_cuts(text, Locator(tokenizer))
    document = Document("a", text)
    parts = [ids for _, ids in encode_in_order([(document, cuts)], encode_with(tokenizer), 2)]
    assert len(parts) == len(cuts) + 1
    return np.concatenate(parts).tolist(), cuts


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("family", FAMILIES)
def test_parts_of_hard_texts_have_the_ids_of_the_full_text(family: str) -> None:
    tokenizer = FAMILIES[family]()
    for name, text in hard_texts(SIZE).items():
        ids, cuts = ids_in_parts(tokenizer, text)
        assert ids == tokenizer.encode(text, add_special_tokens=False).ids, name
        if family in CUT_EVERYWHERE or (name == "prose"):
            assert len(cuts) >= 5, name


@pytest.mark.slow
@pytest.mark.parametrize("make", [*FAMILIES.values(), *tokenizer_families.FAMILIES.values()])
def test_parts_at_real_size_have_the_ids_of_the_full_text(make: Callable[[], Tokenizer]) -> None:
    tokenizer = make()
    tokenizer.encode_special_tokens = True
    for name, text in hard_texts(3 << 18).items():
        ids, _ = ids_in_parts(tokenizer, text)
        assert ids == tokenizer.encode(text, add_special_tokens=False).ids, name


@pytest.mark.usefixtures("short")
def test_added_tokens_across_a_cut_are_kept() -> None:
    """Tokens with a space inside, and one that absorbs the space before it."""
    tokenizer = FAMILIES["llama3"]()
    tokenizer.add_tokens(["tea house", AddedToken("zz", lstrip=True)])
    text = "so tea house zz to " * 400
    ids, cuts = ids_in_parts(tokenizer, text)
    assert len(cuts) > 5
    assert ids == tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.usefixtures("short")
def test_a_text_in_pieces_is_cut_as_one_string() -> None:
    tokenizer, text = FAMILIES["llama2"](), prose(1500)
    pieces = LongText(text[start : start + 97] for start in range(0, len(text), 97))
    assert ids_in_parts(tokenizer, pieces)[0] == ids_in_parts(tokenizer, text)[0]


@pytest.mark.usefixtures("short")
def test_a_text_shorter_than_two_parts_is_not_cut() -> None:
    locate = Locator(FAMILIES["gpt2"]())
    assert find_cuts(prose(1000)[:599], locate) == []
    assert find_cuts(prose(1000)[:900], locate) != []


def test_a_part_without_a_cut_grows_to_the_limit_and_is_refused_there(
    short: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A Viterbi path has no local proof: one word of a Unigram is not cut."""
    monkeypatch.setattr(long_texts, "LIMIT", 600)
    tokenizer = FAMILIES["unigram"]()
    assert find_cuts("a" * 1199, Locator(tokenizer)) == []
    with pytest.raises(NoCutError):
        find_cuts("a" * 1200, Locator(tokenizer))
    documents = [Document("a", "a" * 2000), Document("b", "rope and yarn")]
    store = stored(
        tmp_path / "s", documents, encode=encode_with(tokenizer), locate=Locator(tokenizer),
        vocab_size=900,
    )  # fmt: skip
    assert (list(store.ids), store.metadata["refused"]) == (["b"], {NO_CUT: 1})


def test_the_bytes_of_a_store_do_not_depend_on_whether_texts_were_cut(
    tokenizer: Any, tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [Document(str(i), prose(n, i)) for i, n in enumerate([8000, 20, 600])]
    backend = tokenizer.backend_tokenizer
    encode, locate = encode_with(backend), Locator(backend)
    size = max(backend.get_vocab().values()) + 1
    split = stored(tmp_path / "cut", documents, encode=encode, locate=locate, vocab_size=size)
    monkeypatch.setattr(long_texts, "PART", 1 << 40)
    full = stored(tmp_path / "full", documents, encode=encode, locate=locate, vocab_size=size)
    assert split.metadata["long_texts"]["cuts"] > 20 and full.metadata["long_texts"]["cuts"] == 0
    for name in ("documents.arrow", "00000/documents.arrow", "00000/tokens.bin"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "full" / name).read_bytes()


def test_a_tokenizer_of_characters_is_cut_between_any_two(short: None) -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="b"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")  # type: ignore[assignment]
    text = "a" * (3 * long_texts.PART)
    ids, cuts = ids_in_parts(tokenizer, text)
    assert len(cuts) >= 2 and ids == [0] * len(text)
