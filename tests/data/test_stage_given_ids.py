"""Token ids as sources: the store of the ids is that of the text under the same tokenizer."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from data_fixture import DataFixture
from tokenizers import Tokenizer

from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.data import stage
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import DataArtifacts
from ropewalk.data.tokens import store as token_store

BOS, EOS = "<|pad|>", "<|endoftext|>"  # special tokens of the tokenizers that are trained here


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tokenizer of a base."""
    path = tmp_path_factory.mktemp("base")
    words = "the rope walk lays twisted strands of yarn into ropes, walking backwards"
    tokenizers.save(tokenizers.train([words, words.upper()] * 20, 400), path)
    return path


@pytest.fixture
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def texts(count: int = 40) -> list[str]:
    rng = np.random.default_rng(0)
    line = "the rope walk lays twisted strands of yarn into ropes walking backwards Höhe 7"
    words = line.split()
    return [" ".join(rng.choice(words, int(n))) for n in rng.integers(5, 60, count)]


def run(data_fixture: DataFixture, folder: Path, *words: str) -> tuple[Any, dict[str, Any]]:
    """The store of the source `rows`, and its row of the ledger."""
    base = ["model.scratch=null", f"model.path={folder}"]
    config = data_fixture.config(*words, *base, sources=("notes",))
    output = data_fixture.folder / "out" / "data"
    output.parent.mkdir(exist_ok=True)
    stage.run(config, stage.Inputs(str(folder)), output)
    artifacts = DataArtifacts.of(output.parent, data_fixture.folder / "cache")
    ledger = json.loads((output / "ledger.json").read_text())
    return token_store.load(artifacts.stores["rows"], 0.2), ledger["sources"]["rows"]


def documents(store: Any) -> list[list[int]]:
    return [store.document(n).tolist() for n in range(len(store.length))]


def write(path: Path, rows: list[dict[str, Any]], large: bool = False) -> list[str]:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        table = pa.Table.from_pylist(rows)
        if large:
            column = table["input_ids"].cast(pa.large_list(pa.uint32()))
            table = table.set_column(0, "input_ids", column)
        pq.write_table(table, path)
    return [f"data.sources.rows.path={path.parent}", "data.sources.rows.ids_key=input_ids"]


@pytest.mark.parametrize(("name", "large"), [("a.jsonl", False), ("a.parquet", True)])
def test_rows_of_ids_are_the_documents_of_the_text(
    data_fixture: DataFixture, folder: Path, tokenizer: Tokenizer, name: str, large: bool
) -> None:
    rows = [{"input_ids": tokenizer.encode(text).ids} for text in texts()]
    words = write(data_fixture.folder / "ids" / name, rows, large)
    store, row = run(data_fixture, folder, *words)
    assert documents(store) == [r["input_ids"] for r in rows]
    assert row["given_ids"] == {
        "checked": row["given_ids"]["checked"],
        "agree": row["given_ids"]["checked"],
        "special": 0,
    }
    assert row["given_ids"]["checked"] > 500 and row["kind"] == Path(name).suffix[1:]


@pytest.mark.parametrize("declared", ["begin", "end", "both"])
def test_packed_rows_are_cut_where_documents_begin_or_end(
    data_fixture: DataFixture, folder: Path, tokenizer: Tokenizer, declared: str
) -> None:
    """As YaRN's and Fu's data: documents with their marks end to end, in chunks of 100 tokens."""
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
    marks = {"begin": ([bos], []), "end": ([], [eos]), "both": ([bos], [eos])}[declared]
    ids = [tokenizer.encode(text).ids for text in texts()]
    stream = [token for text in ids for token in (*marks[0], *text, *marks[1])]
    chunks = [stream[start : start + 100] for start in range(0, len(stream), 100)]
    words = write(data_fixture.folder / "ids" / "a.parquet", [{"input_ids": c} for c in chunks])
    if marks[0]:
        words.append(f"data.sources.rows.ids_begin={BOS}")
    if marks[1]:
        words.append(f"data.sources.rows.ids_end={eos}")
    store, row = run(data_fixture, folder, *words)
    assert [t for text in documents(store) for t in text] == [t for text in ids for t in text]
    borders = {sum(map(len, ids[:n])) for n in range(len(ids) + 1)}
    ends = np.cumsum(store.length).tolist()
    assert borders - {0} <= set(ends)  # each document ends one; the others end at a chunk's border
    assert len(ends) <= len(ids) + len(chunks) and row["given_ids"]["special"] == 0
    assert all(name.startswith("a.parquet:") and "/" in name for name in store.ids)


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_rows_are_cut_at_the_spans_of_a_column(
    data_fixture: DataFixture, folder: Path, tokenizer: Tokenizer, name: str
) -> None:
    """As datatools' `indices`, in a row without marks."""
    ids = [tokenizer.encode(text).ids for text in texts()]
    rows = []
    for first in range(0, len(ids), 4):
        ends = np.cumsum([0, *map(len, ids[first : first + 4])]).tolist()
        spans = [list(span) for span in pairwise(ends)]
        rows.append({"input_ids": sum(ids[first : first + 4], []), "indices": spans})
    wrong = [[[0, 2]], [[0, 2], [3, 4]], [[1, 4]], [[0, 4], [4, 4]], [[0, 1, 4]], None]
    bad = [{"input_ids": [5, 6, 7, 8], "indices": spans} for spans in wrong]
    words = write(data_fixture.folder / "ids" / name, [*rows, *bad])
    store, row = run(data_fixture, folder, *words, "data.sources.rows.ids_spans=indices")
    assert documents(store) == ids
    assert row["refused"] == {
        "indices does not cover the ids": 4,
        "indices is not spans": 1,
        "no indices": 1,
    }


def bare(path: Path, ids: list[int]) -> list[str]:
    """A file of bare ids, and the words that read it."""
    path.parent.mkdir(exist_ok=True)
    np.array(ids, "<u2").tofile(path)
    words = {"path": path.parent, "kind": "memmap", "ids_dtype": "uint16", "ids_end": EOS}
    return [f"data.sources.rows.{key}={value}" for key, value in words.items()]


def test_a_file_of_bare_ids_is_the_documents_of_the_text(
    data_fixture: DataFixture, folder: Path, tokenizer: Tokenizer
) -> None:
    eos = tokenizer.token_to_id(EOS)
    ids = [tokenizer.encode(text).ids for text in texts()]
    stream = [token for text in ids for token in (*text, eos)]
    store, row = run(data_fixture, folder, *bare(data_fixture.folder / "ids" / "a.npy", stream))
    assert documents(store) == ids
    assert row["kind"] == "memmap" and row["given_ids"]["agree"] == row["given_ids"]["checked"]
    with pytest.raises(DataError, match=r"^data\.sources\.rows\.kind is memmap; of \d+ ids"):
        other = tokenizers.train(["quite another language: def f(x): return x ** 2"], 400)
        ids = [other.backend.encode(text).ids for text in texts()]
        stream = [token for text in ids for token in (*text, eos)]
        run(data_fixture, folder, *bare(data_fixture.folder / "other" / "a.npy", stream))


def test_rows_of_a_full_length_stay_sequences_when_their_mark_is_taken_out_and_put_back(
    data_fixture: DataFixture, folder: Path, tokenizer: Tokenizer
) -> None:
    """As datatools packs books: bos begins a book and the rest of one; eos ends it."""
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
    rows = []
    for text in texts(60):
        rest = [*tokenizer.encode(f"{text} {text} {text}").ids, eos]
        while len(rest) >= 63:
            rows.append([bos, *rest[:63]])
            rest = rest[63:]
    words = write(data_fixture.folder / "ids" / "a.parquet", [{"input_ids": row} for row in rows])
    words += [f"data.sources.rows.ids_begin={BOS}", f"data.begin={BOS}", "data.packer=best_fit"]
    words += ["data.heldout_share=0", "model.scratch=null", f"model.path={folder}"]
    config = data_fixture.config(*words, sources=())
    output = data_fixture.folder / "out"
    output.mkdir()
    stage.run(config, stage.Inputs(str(folder)), output / "data")
    sequences = DataArtifacts.of(output, data_fixture.folder / "cache").sequences()
    packed = [sequences[number].input_ids.tolist() for number in range(len(sequences))]
    assert len(rows) > 30 and sorted(packed) == sorted(rows)


def test_special_tokens_that_no_setting_names_are_told(
    data_fixture: DataFixture, folder: Path, tokenizer: Tokenizer
) -> None:
    eos = tokenizer.token_to_id(EOS)
    rows = [{"input_ids": [*tokenizer.encode(text).ids, eos]} for text in texts()]
    _, row = run(data_fixture, folder, *write(data_fixture.folder / "ids" / "a.jsonl", rows))
    assert row["given_ids"]["special"] == 40


def test_ids_of_another_tokenizer_are_refused(
    data_fixture: DataFixture, folder: Path, tokenizer: Tokenizer
) -> None:
    other = tokenizers.train(["a quite different language model, of code: def f(x): return x"], 400)
    rows = [{"input_ids": other.backend.encode(text).ids} for text in texts()]
    assert max(map(max, (r["input_ids"] for r in rows))) < tokenizer.get_vocab_size()
    words = write(data_fixture.folder / "ids" / "a.jsonl", rows)
    with pytest.raises(DataError, match=r"^data\.sources\.rows\.ids_key is input_ids; of \d+ ids"):
        run(data_fixture, folder, *words)
    words = write(data_fixture.folder / "ids" / "a.jsonl", [{"input_ids": [1, 2, 70_000]}] * 3)
    with pytest.raises(DataError, match="has token id 70000; ids must be below the vocabulary's"):
        run(data_fixture, folder, *words)


def test_rows_that_hold_no_ids_are_refused_by_reason(
    data_fixture: DataFixture, folder: Path, tokenizer: Tokenizer
) -> None:
    good = [{"input_ids": tokenizer.encode(text).ids} for text in texts()]
    values: list[Any] = [None, [], [-1], [1.5], ["a"], "text", [[1], [2]], [1, None], [2**32]]
    rows = good + [{"input_ids": value} for value in values]
    store, row = run(data_fixture, folder, *write(data_fixture.folder / "ids" / "a.jsonl", rows))
    assert len(store.length) == len(good)
    expected = {"no input_ids": 1, "no tokens": 1, "input_ids is not token ids": 7}
    assert row["refused"] == expected


@pytest.mark.parametrize(
    ("words", "start"),
    [
        (
            ["ids_key=x", "text_key=y"],
            "text_key is y; data.sources.books.ids_key takes a row's ids",
        ),
        (["ids_key=x", "template={a}"], "template is {a}; data.sources.books.ids_key takes a row"),
        (["ids_end=eos"], "ids_end is eos; only ids are cut there; set data.sources.books.ids_key"),
        (["ids_key=x", "ids_end=[1,2]"], "ids_end is [1, 2]; it must be one token"),
        (["ids_spans=x"], "ids_spans is x; only a row's ids are cut there; set data.sources.books"),
        (["ids_key=x"], "ids_key is x; model.scratch trains a tokenizer on text"),
        (
            ["kind=memmap", "ids_dtype=uint16", "ids_end=eos"],
            "kind is memmap; model.scratch trains a tokenizer on text",
        ),
    ],
)
def test_settings_that_contradict_each_other(
    data_fixture: DataFixture, words: list[str], start: str
) -> None:
    with pytest.raises(ConfigError) as error:
        data_fixture.config(*(f"data.sources.books.{word}" for word in words))
    assert f"data.sources.books.{start}" in str(error.value)
