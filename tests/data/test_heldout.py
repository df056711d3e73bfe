"""Held-out windows and text: their documents, their order, and how they begin and end."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from data_fixture import MARKED, DataFixture

from ropewalk.data import stage
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import BoundaryTokens, DataArtifacts, HeldoutText, Window, describe
from ropewalk.data.tokens import store


def store_of(lengths: list[int], heldout: list[bool]) -> store.Store:
    """Token t of document d is 1000 d + t, and its id is d."""
    offset = np.cumsum([0, *lengths[:-1]])
    ids = [str(index) for index in range(len(lengths))]
    tokens = np.concatenate([1000 * index + np.arange(n) for index, n in enumerate(lengths)])
    keys = np.arange(len(ids), dtype=np.uint64)
    return store.Store(tokens, offset, np.array(lengths), np.array(heldout), keys, ids, {}, "")


def test_windows_come_from_long_held_out_documents_only() -> None:
    lengths = [100, 30, 55, 80]
    text = HeldoutText({"a": store_of(lengths, [True, True, False, True])})
    windows = text.windows(40, None, per_document=2)
    assert Counter(window.document for window in windows) == {"0": 2, "3": 2}
    for window in windows:
        first = int(window.ids[0])
        assert window.ids.tolist() == list(range(first, first + 40))
        document = int(window.document)
        assert 0 <= first - 1000 * document <= lengths[document] - 40


def test_windows_of_a_document_do_not_overlap() -> None:
    windows = HeldoutText({"a": store_of([103], [True])}).windows(25, 10, 4)
    tokens = [token for window in windows for token in window.ids.tolist()]
    assert len(windows) == 4 and len(set(tokens)) == 100


def test_documents_are_whole_and_come_from_the_sources_in_turn() -> None:
    stores = {"a": store_of([5, 3, 4], [True, False, True]), "b": store_of([2], [True])}
    documents = HeldoutText(stores, BoundaryTokens(7, 8)).documents()
    expected = [("a", [0, 1, 2, 3, 4]), ("b", [0, 1]), ("a", [2000, 2001, 2002, 2003])]
    assert [(d.source, d.ids.tolist()) for d in documents] == expected


def test_few_windows_are_spread_over_documents_first() -> None:
    windows = HeldoutText({"a": store_of([100] * 4, [True] * 4)}).windows(20, 4, 3)
    assert [window.document for window in windows] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (4, ["a0", "b0", "c0", "a1"]),
        (None, ["a0", "b0", "c0", "a1", "b0", "c2", "a2", "c0", "a0", "c2", "a1", "a2"]),
        (0, []),
    ],
)
def test_the_sources_give_windows_in_turn(count: int | None, expected: list[str]) -> None:
    """A source without further windows is skipped, and the others continue in turn."""
    stores = {
        "a": store_of([100] * 3, [True] * 3),
        "b": store_of([100, 10], [True, True]),
        "c": store_of([100, 100, 100], [True, False, True]),
    }
    windows = HeldoutText(stores).windows(40, count, per_document=2)
    assert [window.source + window.document for window in windows] == expected


def test_a_source_without_held_out_text_changes_no_window_of_another() -> None:
    books = store_of([100, 90, 80], [True] * 3)
    alone = HeldoutText({"a": books}).windows(30, 5, per_document=3)
    stores = {"b": store_of([100], [False]), "a": books, "c": store_of([29], [True])}
    windows = HeldoutText(stores).windows(30, 5, per_document=3)
    assert [w.document for w in windows] == [w.document for w in alone]
    assert [w.ids.tolist() for w in windows] == [w.ids.tolist() for w in alone]


def test_texts_join_the_held_out_documents_of_each_source_and_no_other() -> None:
    stores = {
        "a": store_of([3, 2, 2], [True, False, True]),
        "b": store_of([3], [False]),
        "c": store_of([2], [True]),
    }
    texts = HeldoutText(stores).texts()
    assert [text.tolist() for text in texts] == [[0, 1, 2, 2000, 2001], [0, 1]]


@pytest.mark.parametrize(("begin", "end"), [(7, None), (None, 8), (7, 8)])
@pytest.mark.parametrize("length", [50, 51, 52])
def test_each_window_begins_as_a_document_does_and_the_last_ends_so(
    begin: int | None, end: int | None, length: int
) -> None:
    """Two windows of a document of 100 tokens: at its start and at its end."""
    marks = BoundaryTokens(begin, end)
    text = HeldoutText({"a": store_of([100], [True])}, marks)
    document = [*range(100), *([] if end is None else [end])]
    before = [] if begin is None else [begin]
    size = length - len(before)
    windows = text.windows(length, None, per_document=2)
    expected = [[*before, *document[:size]]]
    if 2 * size <= len(document):
        expected.append([*before, *document[-size:]])
    assert [window.ids.tolist() for window in windows] == expected


def test_boundary_tokens_count_for_the_length_of_a_document() -> None:
    text = HeldoutText({"a": store_of([10, 9, 8], [True] * 3)}, BoundaryTokens(7, 8))
    windows = text.windows(11, None, per_document=1)
    assert {window.document: window.ids.tolist() for window in windows} == {
        "0": [7, *range(10)],
        "1": [7, *range(1000, 1009), 8],
    }


def training_rows(result: DataArtifacts) -> dict[tuple[str, str], list[int]]:
    """The first piece of each document by source and id, as the trainer reads it."""
    sequences, rows = result.sequences(), {}
    first = 0
    for name in result.stores:
        ids = result.store(name).ids
        for number in range(len(sequences)):
            pieces = (column.tolist() for column in sequences.plan.sequence(number))
            document, start, length = next(zip(*pieces, strict=True))
            document -= first
            if 0 <= document < len(ids) and start == 0:
                row = sequences[number].input_ids[:length]
                rows[name, ids[document]] = row.tolist()
        first += len(ids)
    return rows


def test_windows_are_the_sequences_that_training_would_read(
    data_fixture: DataFixture, tmp_path: Path
) -> None:
    """The oracle: the same documents as training documents of another run, one a sequence."""
    folder = tmp_path / "base"
    tokenizers.save(tokenizers.train(["rope walk yarn lay twist strand"] * 20, 300), folder)
    results = {}
    for share in (0.4, 0.0):
        overrides = [*MARKED, "data.packer=single", f"data.heldout_share={share}"]
        config, output = data_fixture.config(*overrides), data_fixture.folder / str(share)
        stage.run(config, stage.Inputs(str(folder)), output / "data")
        results[share] = DataArtifacts.of(output, data_fixture.folder / "cache")
    rows = training_rows(results[0.0])
    text = results[0.4].heldout_text(data_fixture.config(*MARKED).data)
    lengths = {len(row) for row in rows.values()}
    compared = set()
    for length in lengths:
        for window in text.windows(length, None, per_document=1):
            row = rows[window.source, window.document]
            assert window.ids[: len(row)].tolist() == row[:length]  # min_piece may cut before 64
            compared.add((window.source, row[-1] == 0 and len(row) == length))
    assert compared == {(source, end) for source in ("books", "notes") for end in (True, False)}


def test_context_only_and_synthetic_sources_give_no_windows(data_fixture: DataFixture) -> None:
    """Also where two sources read one folder, and one of them counts."""
    shutil.copytree(data_fixture.folder / "books", data_fixture.folder / "others")
    overrides = [
        *("data.sources.notes.loss=false", "data.sources.again.kind=repeat"),
        *("data.sources.again.filler=books", f"data.sources.b.path={data_fixture.folder}/books"),
        "data.sources.b.loss=false",
        *(f"data.sources.{name}.weight=1" for name in ("books", "notes", "b", "again")),
    ]
    config = data_fixture.config(*overrides)
    result = data_fixture.run(*overrides)
    text = result.folders.heldout_text(config.data)
    assert list(text.stores) == ["books"] and text.context_only == ["notes"]
    layout = text.layout(text.windows(32, 4, 1))
    assert layout["sources"] == {"books": {"windows": 4, "documents": 4}}
    assert describe(layout) == (
        "windows by source, in turn: books 4; none from notes, whose labels training does not count"
    )


def test_without_another_text_source_context_only_ones_give_the_windows(
    data_fixture: DataFixture,
) -> None:
    overrides = [
        *("data.sources.books.loss=false", "data.sources.again.kind=repeat"),
        *("data.sources.again.filler=books", "data.sources.again.weight=1"),
        "data.sources.books.weight=1",
    ]
    config = data_fixture.config(*overrides, sources=("books",))
    text = data_fixture.run(*overrides, sources=("books",)).folders.heldout_text(config.data)
    assert list(text.stores) == ["books"] and text.context_only == []


def test_a_layout_counts_windows_and_documents_by_source() -> None:
    ids = np.zeros(4, np.int64)
    text = HeldoutText(dict.fromkeys("ab", store_of([4], [True])), BoundaryTokens(7, 8), ["c"])
    layout = text.layout([Window("x", ids, "a"), Window("x", ids, "b"), Window("x", ids, "a")])
    assert layout == {
        "begin": 7,
        "end": 8,
        "sources": {"a": {"windows": 2, "documents": 1}, "b": {"windows": 1, "documents": 1}},
        "context_only": ["c"],
    }
    assert describe(layout) == (
        "windows by source, in turn: a 2, b 1; as training documents do, they begin with token 7 "
        "and, at a document's end, end with token 8; none from c, whose labels training does not "
        "count"
    )
