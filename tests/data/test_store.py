"""The token store: what was written is what is read, and what was not written is counted."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ropewalk.conf.manifest import Manifest, publish
from ropewalk.data import store
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.sources import Document, Refusal


def finish(folder: Path, facts: dict[str, Any]) -> store.Store:
    manifest = Manifest.of("tokens", {})
    manifest.facts = facts
    publish(folder, folder.with_name("done"), manifest)
    return store.load(folder.with_name("done"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "new").mkdir()
    return tmp_path / "new"


def by_bytes(texts: list[str]) -> list[np.ndarray]:
    """An encoder that is easy to check: a token a byte."""
    return [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint32) for text in texts]


def test_documents_come_back_token_by_token(folder: Path) -> None:
    texts = {"a": "rope", "b": "walking é", "c": "x"}
    facts = store.write(folder, [Document(*item) for item in texts.items()], by_bytes, 300, 0.0, lambda _: None)
    opened = finish(folder, facts)
    assert {name: bytes(opened.document(i).astype(np.uint8)).decode() for i, name in enumerate(opened.ids)} == texts
    assert bytes(opened.document(1, 2, 3).astype(np.uint8)) == b"lki"
    assert bytes(opened.document(1, 2).astype(np.uint8)) == "walking é".encode()[2:]
    assert opened.length.sum() == len(opened.tokens) == facts["tokens"]


def test_table_holds_characters_and_offsets(folder: Path) -> None:
    store.write(folder, [Document("a", "éé"), Document("b", "xyz")], by_bytes, 300, 0.0, lambda _: None)
    table = pa.ipc.open_file(pa.memory_map(str(folder / "documents.arrow"))).read_all().to_pydict()
    assert table == {
        "id": ["a", "b"],
        # the first 8 bytes of sha256, by `printf a | sha256sum`
        "key": [0xCA978112CA1BBDCA, 0x3E23E8160039594A],
        "offset": [0, 4],
        "tokens": [4, 3],
        "characters": [2, 3],
        "heldout": [False, False],
    }


def test_refusals_are_counted_by_reason(folder: Path) -> None:
    items = [Refusal("1", "empty"), Document("a", "x"), Refusal("2", "not UTF-8"), Refusal("3", "empty")]
    facts = store.write(folder, items, by_bytes, 300, 0.0, lambda _: None)
    assert (facts["documents"], facts["refused"]) == (1, {"empty": 2, "not UTF-8": 1})


def test_a_document_without_tokens_is_counted_not_stored(folder: Path) -> None:
    encode = lambda texts: [np.zeros(0 if t == "b" else 2, np.uint32) for t in texts]  # noqa: E731
    facts = store.write(folder, [Document(n, n) for n in "abc"], encode, 300, 0.0, lambda _: None)
    assert finish(folder, facts).ids == ["a", "c"]
    assert facts["refused"] == {"no tokens": 1}


def test_batches_change_no_byte(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [Document(str(i), "rope " * (i + 1)) for i in range(50)]
    seen: list[int] = []
    store.write(folder, documents, by_bytes, 300, 0.1, seen.append)
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(store, "BATCH_CHARACTERS", 40)
    counted: list[int] = []
    store.write(tmp_path / "other", documents, by_bytes, 300, 0.1, counted.append)
    assert len(counted) > len(seen) and sum(counted) == sum(seen) == sum(len(d.text) for d in documents)
    for name in ("tokens.bin", "documents.arrow"):
        assert (folder / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


@pytest.mark.parametrize(("vocab_size", "dtype"), [(300, "uint16"), (65_536, "uint16"), (65_537, "uint32")])
def test_largest_id_of_a_vocabulary_fits(folder: Path, vocab_size: int, dtype: str) -> None:
    largest = np.array([vocab_size - 1, 0], np.uint32)
    facts = store.write(folder, [Document("a", "x")], lambda _: [largest], vocab_size, 0.0, lambda _: None)
    opened = finish(folder, facts)
    assert (facts["dtype"], opened.document(0).tolist()) == (dtype, [vocab_size - 1, 0])
    assert (opened.tokens.dtype, isinstance(opened.tokens.base, np.memmap)) == (np.dtype(dtype), True)


def test_heldout_share_is_met_and_independent_of_order(folder: Path) -> None:
    names = [f"document {i}" for i in range(4000)]
    held = {name for name in names if store.is_heldout(name, 0.1)}
    assert 0.08 < len(held) / len(names) < 0.12
    facts = store.write(folder, [Document(n, "x") for n in reversed(names)], by_bytes, 300, 0.1, lambda _: None)
    opened = finish(folder, facts)
    assert {name for name, out in zip(opened.ids, opened.heldout, strict=True) if out} == held
    assert facts["heldout_documents"] == facts["heldout_tokens"] == len(held)


def test_more_heldout_keeps_what_was_held_out() -> None:
    names = [str(i) for i in range(1000)]
    small, large = ({n for n in names if store.is_heldout(n, share)} for share in (0.05, 0.3))
    assert small < large
    assert not any(store.is_heldout(n, 0.0) for n in names)


def test_synthetic_documents_are_never_held_out(folder: Path) -> None:
    opened = finish(folder, store.write_ids(folder, [np.arange(4), np.arange(7)], 300))
    assert not opened.heldout.any()
    assert [opened.document(i).tolist() for i in range(2)] == [[0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6]]


def test_empty_store_opens(folder: Path) -> None:
    opened = finish(folder, store.write_ids(folder, [], 300))
    assert (len(opened.tokens), opened.ids, int(opened.length[~opened.heldout].sum())) == (0, [], 0)


def test_unfinished_store_is_not_read(folder: Path) -> None:
    store.write_ids(folder, [np.arange(4)], 300)
    with pytest.raises(AssertionError, match="not finished"):
        store.load(folder)


def test_encoder_adds_no_special_tokens_and_decodes_back(tokenizer: Any) -> None:
    texts = ["The rope is laid.", "12345", "é\n\tx"]
    found = store.encode_with(tokenizers.backend(tokenizer))(texts)
    assert [tokenizer.decode(ids) for ids in found] == texts
    assert not any(set(ids.tolist()) & set(tokenizer.all_special_ids) for ids in found)


def test_special_words_inside_a_document_are_text(tokenizer: Any) -> None:
    """No BOS or EOS inside: a document that spells one does not end there."""
    ids = store.encode_with(tokenizers.backend(tokenizer))(["before <|endoftext|> after"])[0]
    assert not set(ids.tolist()) & set(tokenizer.all_special_ids)


def test_padding_and_truncation_of_a_tokenizer_file_change_no_id(tokenizer: Any) -> None:
    import copy

    spoiled = copy.deepcopy(tokenizer)
    spoiled.backend_tokenizer.enable_truncation(3)
    spoiled.backend_tokenizer.enable_padding(length=50)
    text = ["The rope is laid in the long walk."]
    wanted = store.encode_with(tokenizers.backend(tokenizer))(text)[0]
    assert store.encode_with(tokenizers.backend(spoiled))(text)[0].tolist() == wanted.tolist()
    assert tokenizers.identity(spoiled) == tokenizers.identity(tokenizer)


def test_tokenizer_training_splits_digits_and_is_the_same_twice(tokenizer: Any) -> None:
    texts = ["yarn 123 yarn 1234", "walk 99"] * 50
    one, two = (tokenizers.train(texts, 280) for _ in range(2))
    assert tokenizers.identity(one) == tokenizers.identity(two) != tokenizers.identity(tokenizer)
    digits = [word for word in one.get_vocab() if sum(c.isdigit() for c in word) > 1]
    assert digits == []


@pytest.mark.parametrize("values", [[], [3], [1, 2, 3, 4]])
@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.uint8()])
def test_a_column_of_numbers_is_what_arrow_says(values: list[int], kind: pa.DataType) -> None:
    parts = pa.chunked_array([values, values[:2]], type=kind)
    for column in (parts, parts.slice(1), pa.array(values, kind), pa.array(values, kind).slice(1)):
        found = store.numbers(column)
        assert found.tolist() == column.to_pylist() and found.dtype == kind.to_pandas_dtype()


def test_a_store_opens_without_pandas(folder: Path) -> None:
    """Arrow imports it where its `to_numpy` is used: half a second of every start, for nothing."""
    texts = {"a": "rope", "b": "yarn"}
    facts = store.write(folder, [Document(*item) for item in texts.items()], by_bytes, 300, 0.5, lambda _: None)
    opened = finish(folder, facts)
    assert opened.heldout.dtype == bool and opened.heldout.tolist() == [store.is_heldout(i, 0.5) for i in texts]
    code = (
        "import sys; from pathlib import Path; from ropewalk.data import store; store.load(Path(sys.argv[1]));"
        "sys.exit('pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder.with_name("done"))], check=True)
