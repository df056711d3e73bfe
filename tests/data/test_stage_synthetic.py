"""Synthetic documents through the whole stage: uncut, taken once, from training text only."""

import re

import numpy as np
import pytest
from data_fixture import MARKED, SYNTHETIC, DataFixture, assert_complete

from ropewalk.conf.errors import DataError
from ropewalk.data.tokens import store


def test_short_synthetic_documents_are_not_cut_to_fill_gaps(data_fixture: DataFixture) -> None:
    overrides = [w.replace("again.kind=repeat", "again.kind=passkey") for w in SYNTHETIC]
    overrides = [w.replace("again.weight=0.5", "again.weight=9.5") for w in overrides]
    result = data_fixture.run(
        *overrides, "data.seq_len=1024", "data.total_tokens=20000", sources=("books",)
    )
    assert_complete(result, "again")


def test_synthetic_documents_are_not_cut(data_fixture: DataFixture) -> None:
    result = data_fixture.run(*SYNTHETIC, sources=("books",))
    assert result.ledger["sources"]["again"]["documents"] > 5
    assert_complete(result, "again")


def test_pass_key_documents_are_not_cut_and_can_be_read(data_fixture: DataFixture) -> None:
    from transformers import AutoTokenizer

    overrides = [w.replace("again.kind=repeat", "again.kind=passkey") for w in SYNTHETIC]
    result = data_fixture.run(
        *overrides, "data.seq_len=1024", "data.total_tokens=40000", sources=("books",)
    )
    tokenizer = AutoTokenizer.from_pretrained(str(result.folders.tokenizer))
    documents = result.folders.store("again")
    for index in range(len(documents.length)):
        text = tokenizer.decode(documents.document(index))
        key = re.search(r"What is the pass key\? The pass key is (\d{5})$", text)
        assert key and text.count(key[1]) >= 3
    assert_complete(result, "again")


def test_synthetic_text_comes_from_training_documents_only(data_fixture: DataFixture) -> None:
    name = next(f"{i}.txt" for i in range(1000) if store.is_heldout(f"{i}.txt", 0.2))
    (data_fixture.folder / "books" / name).write_text("Q" * 3000)
    result = data_fixture.run(*SYNTHETIC, "data.total_tokens=20000", sources=("books",))
    books, again = result.folders.store("books"), result.folders.store("again")
    secret = set(books.document(books.ids.index(name)).tolist())
    shared = {t for i in np.flatnonzero(~books.heldout) for t in books.document(int(i)).tolist()}
    assert secret - shared
    assert not (secret - shared) & {
        t for i in range(len(again.length)) for t in again.document(i).tolist()
    }


def test_filler_that_is_all_held_out_is_refused(data_fixture: DataFixture) -> None:
    (data_fixture.folder / "only").mkdir()
    name = next(f"{i}.txt" for i in range(1000) if store.is_heldout(f"{i}.txt", 0.2))
    (data_fixture.folder / "only" / name).write_text("rope " * 200)
    overrides = [override.replace("books", "only") for override in SYNTHETIC]
    with pytest.raises(DataError, match=r"data\.sources\.only"):
        data_fixture.run(*overrides, "data.total_tokens=1000", sources=("only",))


def test_short_pass_key_documents_have_room_for_the_task(
    data_fixture: DataFixture,
) -> None:
    """With a vocabulary of 300 the task takes more than a hundred tokens."""
    overrides = [w.replace("again.kind=repeat", "again.kind=passkey") for w in SYNTHETIC]
    result = data_fixture.run(
        *overrides, "data.seq_len=256", "data.total_tokens=40000", sources=("books",)
    )
    assert result.ledger["sources"]["again"]["documents"] > 50
    assert_complete(result, "again")


def test_synthetic_documents_leave_room_for_boundary_tokens(data_fixture: DataFixture) -> None:
    result = data_fixture.run(
        *SYNTHETIC,
        *MARKED,
        "data.sources.again.piece_len=50",
        "data.packer=single",
        sources=("books",),
    )
    lengths = result.folders.store("again").length.tolist()
    assert set(lengths) == {48}
    assert sorted(result.by_source()["again"]) == [(i, 0, 50) for i in range(len(lengths))]


def test_length_settings_do_not_apply_to_synthetic_documents(
    data_fixture: DataFixture,
) -> None:
    overrides = ('data.length_weights={"<1M": 0.5}', 'data.buckets={"<200": 1, ">=200": 1}')
    (data_fixture.folder / "books" / "long.txt").write_text("rope walk " * 400)
    result = data_fixture.run(*SYNTHETIC, *overrides, sources=("books",))
    assert_complete(result, "again")
    assert result.ledger["sources"]["again"]["repeats"] == 1


def test_length_settings_are_accepted_for_synthetic_documents_alone(
    data_fixture: DataFixture,
) -> None:
    overrides = [w.replace("books.weight=0.5", "books.weight=0") for w in SYNTHETIC]
    result = data_fixture.run(
        *overrides,
        'data.buckets={"<1K": 1, ">=1K": 1}',
        "data.total_tokens=2000",
        sources=("books",),
    )
    assert result.ledger["sources"]["books"]["tokens_in_plan"] == 0
    assert_complete(result, "again")
