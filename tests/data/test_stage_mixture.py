"""The mixture through the whole stage: shares, lengths, buckets, repeats."""

import re
from collections import Counter

import numpy as np
import pytest
from data_fixture import MARKED, DataFixture, tokens_by_document

from ropewalk.conf.errors import DataError
from ropewalk.data.ledger.terminal import summary


def test_weights_are_kept_to_within_a_sequence(data_fixture: DataFixture) -> None:
    overrides = (
        "data.sources.books.weight=0.75",
        "data.sources.notes.weight=0.25",
        "data.total_tokens=3000",
    )
    result = data_fixture.run(*overrides)
    taken = {name: row["tokens_in_plan"] for name, row in result.ledger["sources"].items()}
    assert taken == {"books": 2250, "notes": 750}


def test_short_documents_come_seldom_and_the_sources_keep_their_ratio(
    data_fixture: DataFixture,
) -> None:
    result = data_fixture.run(
        'data.length_weights={"<50": 0.1}',
        "data.sources.notes.length_weights={}",
        "data.total_tokens=2000",
    )
    opened = {name: result.folders.store(name) for name in ("books", "notes")}
    train = {name: int(s.length[~s.heldout].sum()) for name, s in opened.items()}
    rows = result.ledger["sources"]
    assert sum(row["tokens_in_plan"] for row in rows.values()) == 2000
    assert abs(rows["books"]["tokens_in_plan"] - 2000 * train["books"] / sum(train.values())) < 1
    books, taken = opened["books"], tokens_by_document(result, "books")
    times = {d: taken[d] / int(books.length[d]) for d in np.flatnonzero(~books.heldout).tolist()}
    short, long = (
        [t for d, t in times.items() if (books.length[d] < 50) == s] for s in (True, False)
    )
    assert len(short) > 3 and sum(short) / len(short) < 0.4 * sum(long) / len(long)
    assert np.ceil(max(times.values())) == rows["books"]["repeats"]


def test_plan_of_ranges_is_named_by_what_they_mean(data_fixture: DataFixture) -> None:
    """Another spelling is the same plan; the weights of a source win over those of all; unset ones rename nothing."""
    plain = data_fixture.run(output="p").folders.plan
    fu = data_fixture.run('data.length_weights={"<4K": 0.5}', output="a").folders.plan
    spelled = data_fixture.run('data.length_weights={"<4096": 0.5}', output="b").folders.plan
    own = [f'data.sources.{name}.length_weights={{"<4k": 0.5}}' for name in ("books", "notes")]
    by_source = data_fixture.run(*own, 'data.length_weights={"<8": 7}', output="c").folders.plan
    off = [f"data.sources.{name}.length_weights={{}}" for name in ("books", "notes")]
    assert fu == spelled == by_source != plain
    assert data_fixture.run(*off, 'data.length_weights={"<8": 7}', output="d").folders.plan == plain
    overrides = (
        "data.sources.books.min_len=20",
        "data.sources.books.max_len=90",
        'data.buckets={"<20": 1, ">=20": 2}',
    )
    others = [
        data_fixture.run(
            "data.total_tokens=900", "data.max_epochs=100", *override, output=f"e{n}"
        ).folders.plan
        for n, override in enumerate([(), *zip(overrides, strict=True)])
    ]
    assert len(set(others)) == 4
    assert data_fixture.run("data.max_epochs=7", output="f").folders.plan == plain


def test_documents_outside_min_len_and_max_len_are_left_out_and_counted(
    data_fixture: DataFixture,
) -> None:
    result = data_fixture.run("data.sources.books.min_len=100", "data.sources.books.max_len=300")
    opened, row = result.folders.store("books"), result.ledger["sources"]["books"]
    train = np.flatnonzero(~opened.heldout).tolist()
    inside = [d for d in train if 100 <= opened.length[d] <= 300]
    assert 0 < len(inside) < len(train)
    assert tokens_by_document(result, "books") == Counter(
        {d: int(opened.length[d]) for d in inside}
    )
    out = [int(opened.length[d]) for d in train if d not in inside]
    assert (row["outside_length"], row["outside_length_documents"]) == (sum(out), len(out))
    assert row["left_out"]["outside_length"] == {"documents": len(out), "tokens": sum(out)}
    assert re.search(
        rf"tokens not in the plan .*outside length\nbooks .* {sum(out):,}", summary(result.ledger)
    )


def test_length_counts_begin_and_end(data_fixture: DataFixture) -> None:
    shortest = int(min(data_fixture.run().folders.store("notes").length))
    for overrides, least in ((), shortest), (MARKED, shortest + 2):
        result = data_fixture.run(
            *overrides, f"data.sources.notes.min_len={least}", output=f"o{least}"
        )
        assert result.ledger["sources"]["notes"]["outside_length"] == 0


def test_buckets_share_each_sources_tokens_and_what_lacks_is_told(
    data_fixture: DataFixture,
) -> None:
    """Notes have no document of 200 tokens: its long share is filled by its short ones."""
    (data_fixture.folder / "books" / "long.txt").write_text("rope walk " * 400)
    result = data_fixture.run('data.buckets={"<200": 0.7, ">=200": 0.3}', "data.total_tokens=3000")
    opened = result.folders.store("books")
    taken = tokens_by_document(result, "books")
    row = result.ledger["sources"]["books"]
    long = sum(n for d, n in taken.items() if opened.length[d] >= 200)
    assert row["buckets"][">=200"]["taken"] == row["buckets"][">=200"]["asked"] == long
    assert abs(long - 0.3 * row["tokens_in_plan"]) < 1
    notes = result.ledger["sources"]["notes"]["buckets"]
    assert int(result.folders.store("notes").length.max()) < 200
    assert (
        notes[">=200"]["taken"] == 0
        and notes["<200"]["taken"] == result.ledger["sources"]["notes"]["tokens_in_plan"]
    )
    said = f"notes: tokens of lengths that it has no document of were taken from <200: {notes['>=200']['asked']:,} of >=200"
    assert said in " ".join(summary(result.ledger).split())


def test_bucket_without_a_document_is_refused_before_a_plan(data_fixture: DataFixture) -> None:
    with pytest.raises(
        DataError, match=r"^data\.buckets >=1M is 0\.5; a bucket must hold a training document"
    ):
        data_fixture.run('data.buckets={"<1M": 0.5, ">=1M": 0.5}')
    assert not list((data_fixture.folder / "cache").rglob("plan.arrow"))


def test_repeats_beyond_the_cap_are_refused_also_when_the_plan_is_there(
    data_fixture: DataFixture,
) -> None:
    said = r"^data\.max_epochs is 4; .* of books one would be taken \d+ times \(\d+\.\d\d epochs of all"
    with pytest.raises(DataError, match=said):
        data_fixture.run("data.total_tokens=60000", "data.max_epochs=4")
    assert not list((data_fixture.folder / "cache").rglob("plan.arrow"))
    rows = data_fixture.run("data.total_tokens=60000", "data.max_epochs=1000").ledger["sources"]
    assert rows["books"]["repeats"] == int(np.ceil(rows["books"]["epochs"]))
    with pytest.raises(DataError, match=said):
        data_fixture.run("data.total_tokens=60000", "data.max_epochs=4", output="again")


def test_repeats_by_length_are_capped_too(data_fixture: DataFixture) -> None:
    with pytest.raises(DataError, match=r"^data\.max_epochs is 4; .* would be taken 6 times"):
        data_fixture.run('data.length_weights={">=1": 6}', "data.max_epochs=4")
    assert not list((data_fixture.folder / "cache").rglob("plan.arrow"))


def test_what_is_asked_of_the_mixture_is_printed_and_else_nothing(
    data_fixture: DataFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    data_fixture.run()
    assert "mixture" not in capsys.readouterr().out
    data_fixture.run(
        "mixture=ultralong",
        "data.sources.notes.length_weights={}",
        "data.sources.books.max_len=9999",
    )
    said = "mixture: ultralong; expected repeats <4K 0.1, >8K 2; expected repeats of notes all 1; books of 1 to 9,999 tokens; "
    assert said + "a document at most 20 times" in capsys.readouterr().out


def test_one_folder_at_two_lengths_of_piece(data_fixture: DataFixture) -> None:
    """ProLong's 512K and 64K pieces, in small: no document in both, one token store, its held-out documents once."""
    path = f"path={data_fixture.folder / 'books'}"
    overrides = [
        f"data.sources.{name}.{override}"
        for name in ("long", "short")
        for override in (path, "weight=0.5")
    ]
    overrides += [
        "data.sources.long.min_len=60",
        "data.sources.short.max_len=59",
        "data.sources.short.piece_len=32",
    ]
    result = data_fixture.run(*overrides, "data.seq_len=128", sources=())
    assert result.folders.stores["long"] == result.folders.stores["short"]
    parts = {name: tokens_by_document(result, name) for name in ("long", "short")}
    assert parts["long"] and parts["short"] and not set(parts["long"]) & set(parts["short"])
    assert max(length for _, _, length in result.by_source()["short"]) <= 32
    assert max(length for _, _, length in result.by_source()["long"]) > 32
    assert len(result.folders.text_stores(data_fixture.config(*overrides, sources=()).data)) == 1
