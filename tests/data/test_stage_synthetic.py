"""Made-up documents through the whole stage: whole, once, readable, and of training text only."""

import re

import numpy as np
import pytest
from data_fixture import MARKED, SYNTHETIC, DataFixture, assert_complete

from ropewalk.conf.errors import DataError
from ropewalk.data.tokens import store


def test_short_synthetic_documents_are_not_cut_to_fill_gaps(data_fixture: DataFixture) -> None:
    words = [w.replace("again.kind=repeat", "again.kind=passkey") for w in SYNTHETIC]
    words = [w.replace("again.weight=0.5", "again.weight=9.5") for w in words]
    assert_complete(
        data_fixture.run(
            *words, "data.seq_len=1024", "data.total_tokens=20000", sources=("books",)
        ),
        "again",
    )


def test_synthetic_sources_stay_whole(data_fixture: DataFixture) -> None:
    result = data_fixture.run(*SYNTHETIC, sources=("books",))
    assert result.ledger["sources"]["again"]["documents"] > 5
    assert_complete(result, "again")


def test_pass_keys_stay_whole_and_can_be_read(data_fixture: DataFixture) -> None:
    from transformers import AutoTokenizer

    words = [w.replace("again.kind=repeat", "again.kind=passkey") for w in SYNTHETIC]
    result = data_fixture.run(
        *words, "data.seq_len=1024", "data.total_tokens=40000", sources=("books",)
    )
    tokenizer, opened = (
        AutoTokenizer.from_pretrained(str(result.folders.tokenizer)),
        result.folders.store("again"),
    )
    for index in range(len(opened.length)):
        text = tokenizer.decode(opened.document(index))
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
    (data_fixture.folder / "one").mkdir()
    name = next(f"{i}.txt" for i in range(1000) if store.is_heldout(f"{i}.txt", 0.2))
    (data_fixture.folder / "one" / name).write_text("rope " * 200)
    words = [w.replace("books", "one") for w in SYNTHETIC]
    with pytest.raises(DataError, match=r"data\.sources\.one"):
        data_fixture.run(*words, "data.total_tokens=1000", sources=("one",))


def test_near_pass_keys_leave_room_for_the_task_in_a_small_vocabulary(
    data_fixture: DataFixture,
) -> None:
    """300 words spell the task in more than a hundred tokens; near keys must still leave room for it."""
    words = [w.replace("again.kind=repeat", "again.kind=passkey") for w in SYNTHETIC]
    result = data_fixture.run(
        *words, "data.seq_len=256", "data.total_tokens=40000", sources=("books",)
    )
    assert result.ledger["sources"]["again"]["documents"] > 50
    assert_complete(result, "again")


def test_synthetic_documents_leave_room_for_their_marks(data_fixture: DataFixture) -> None:
    result = data_fixture.run(
        *SYNTHETIC,
        *MARKED,
        "data.sources.again.piece_len=50",
        "data.packer=single",
        sources=("books",),
    )
    opened = result.folders.store("again")
    assert set(opened.length.tolist()) == {48}
    assert sorted(result.by_source()["again"]) == [(i, 0, 50) for i in range(len(opened.length))]


def test_made_up_documents_are_taken_once_whatever_the_lengths_say(
    data_fixture: DataFixture,
) -> None:
    words = ('data.length_weights={"<1M": 0.5}', 'data.buckets={"<200": 1, ">=200": 1}')
    (data_fixture.folder / "books" / "long.txt").write_text("rope walk " * 400)
    result = data_fixture.run(*SYNTHETIC, *words, sources=("books",))
    assert_complete(result, "again")
    assert result.ledger["sources"]["again"]["repeats"] == 1


def test_numbers_by_length_may_find_made_up_documents_alone(data_fixture: DataFixture) -> None:
    words = [w.replace("books.weight=0.5", "books.weight=0") for w in SYNTHETIC]
    result = data_fixture.run(
        *words, 'data.buckets={"<1K": 1, ">=1K": 1}', "data.total_tokens=2000", sources=("books",)
    )
    assert result.ledger["sources"]["books"]["tokens_in_plan"] == 0
    assert_complete(result, "again")
