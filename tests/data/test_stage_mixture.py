"""The mixture through the whole stage: shares, lengths, buckets, repeats."""

import re
from collections import Counter

import numpy as np
import pytest
from data_fixture import MARKED, DataFixture, tokens_by_document

from ropewalk.conf.errors import DataError
from ropewalk.data.ledger.terminal import summary
from ropewalk.data.tokens.store import is_heldout


def test_budgets_follow_the_weights(data_fixture: DataFixture) -> None:
    overrides = (
        "data.sources.books.weight=0.75",
        "data.sources.notes.weight=0.25",
        "data.total_tokens=3000",
    )
    result = data_fixture.run(*overrides)
    tokens = {name: row["tokens_in_plan"] for name, row in result.ledger["sources"].items()}
    assert tokens == {"books": 2250, "notes": 750}


def test_short_documents_are_sampled_and_the_sources_keep_their_ratio(
    data_fixture: DataFixture,
) -> None:
    result = data_fixture.run(
        'data.length_weights={"<50": 0.1}',
        "data.sources.notes.length_weights={}",
        "data.total_tokens=2000",
    )
    stores = {name: result.folders.store(name) for name in ("books", "notes")}
    train = {name: int(s.length[~s.heldout].sum()) for name, s in stores.items()}
    rows = result.ledger["sources"]
    assert sum(row["tokens_in_plan"] for row in rows.values()) == 2000
    assert abs(rows["books"]["tokens_in_plan"] - 2000 * train["books"] / sum(train.values())) < 1
    books, tokens = stores["books"], tokens_by_document(result, "books")
    times = {d: tokens[d] / int(books.length[d]) for d in np.flatnonzero(~books.heldout).tolist()}
    short, long = (
        [t for d, t in times.items() if (books.length[d] < 50) == s] for s in (True, False)
    )
    assert len(short) > 3 and sum(short) / len(short) < 0.4 * sum(long) / len(long)
    assert np.ceil(max(times.values())) == rows["books"]["repeats"]


def test_the_plan_depends_on_the_meaning_of_length_settings(data_fixture: DataFixture) -> None:
    """Another spelling gives the same plan; a source's own weights override the common ones."""
    default = data_fixture.run(output="p").folders.plan
    fu = data_fixture.run('data.length_weights={"<4K": 0.5}', output="a").folders.plan
    spelled = data_fixture.run('data.length_weights={"<4096": 0.5}', output="b").folders.plan
    source_weights = [
        f'data.sources.{name}.length_weights={{"<4k": 0.5}}' for name in ("books", "notes")
    ]
    by_source = data_fixture.run(
        *source_weights, 'data.length_weights={"<8": 7}', output="c"
    ).folders.plan
    off = [f"data.sources.{name}.length_weights={{}}" for name in ("books", "notes")]
    assert fu == spelled == by_source != default
    unweighted = data_fixture.run(*off, 'data.length_weights={"<8": 7}', output="d").folders.plan
    assert unweighted == default
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
    assert data_fixture.run("data.max_epochs=7", output="f").folders.plan == default


def test_documents_outside_min_len_and_max_len_are_left_out_and_counted(
    data_fixture: DataFixture,
) -> None:
    result = data_fixture.run("data.sources.books.min_len=100", "data.sources.books.max_len=300")
    books, row = result.folders.store("books"), result.ledger["sources"]["books"]
    lengths = {d: int(books.length[d]) for d in np.flatnonzero(~books.heldout).tolist()}
    inside = {d: length for d, length in lengths.items() if 100 <= length <= 300}
    assert 0 < len(inside) < len(lengths)
    assert tokens_by_document(result, "books") == Counter(inside)
    count, tokens = len(lengths) - len(inside), sum(lengths.values()) - sum(inside.values())
    assert (row["outside_length"], row["outside_length_documents"]) == (tokens, count)
    assert row["left_out"]["outside_length"] == {"documents": count, "tokens": tokens}
    lines = rf"tokens not in the plan .*outside length\nbooks .* {tokens:,}"
    assert re.search(lines, summary(result.ledger))


def test_length_counts_begin_and_end(data_fixture: DataFixture) -> None:
    shortest = int(min(data_fixture.run().folders.store("notes").length))
    for overrides, min_len in ((), shortest), (MARKED, shortest + 2):
        result = data_fixture.run(
            *overrides, f"data.sources.notes.min_len={min_len}", output=f"o{min_len}"
        )
        assert result.ledger["sources"]["notes"]["outside_length"] == 0


def test_buckets_split_each_source_and_an_empty_bucket_is_noted(data_fixture: DataFixture) -> None:
    """Notes have no document of 200 tokens, so its short documents fill the long share."""
    (data_fixture.folder / "books" / "long.txt").write_text("rope walk " * 400)
    result = data_fixture.run('data.buckets={"<200": 0.7, ">=200": 0.3}', "data.total_tokens=3000")
    lengths = result.folders.store("books").length
    row = result.ledger["sources"]["books"]
    long = sum(n for d, n in tokens_by_document(result, "books").items() if lengths[d] >= 200)
    assert row["buckets"][">=200"]["taken"] == row["buckets"][">=200"]["asked"] == long
    assert abs(long - 0.3 * row["tokens_in_plan"]) < 1
    notes = result.ledger["sources"]["notes"]
    long_notes, short_notes = (notes["buckets"][text] for text in (">=200", "<200"))
    assert int(result.folders.store("notes").length.max()) < 200
    assert long_notes["taken"] == 0 and short_notes["taken"] == notes["tokens_in_plan"]
    message = f"tokens of lengths without documents were taken from <200: {long_notes['asked']:,}"
    assert f"notes: {message} of >=200" in " ".join(summary(result.ledger).split())


def test_bucket_without_a_document_is_refused_before_a_plan(data_fixture: DataFixture) -> None:
    with pytest.raises(
        DataError, match=r"^data\.buckets >=1M is 0\.5; a bucket must hold a training document"
    ):
        data_fixture.run('data.buckets={"<1M": 0.5, ">=1M": 0.5}')
    assert not list((data_fixture.folder / "cache").rglob("plan.arrow"))


def test_repeats_beyond_the_cap_are_refused_also_for_an_existing_plan(
    data_fixture: DataFixture,
) -> None:
    message = (
        r"^data\.max_epochs is 4; .* of books one would be taken \d+ times "
        r"\(\d+\.\d\d epochs of all"
    )
    with pytest.raises(DataError, match=message):
        data_fixture.run("data.total_tokens=60000", "data.max_epochs=4")
    assert not list((data_fixture.folder / "cache").rglob("plan.arrow"))
    rows = data_fixture.run("data.total_tokens=60000", "data.max_epochs=1000").ledger["sources"]
    assert rows["books"]["repeats"] == int(np.ceil(rows["books"]["epochs"]))
    with pytest.raises(DataError, match=message):
        data_fixture.run("data.total_tokens=60000", "data.max_epochs=4", output="again")


def test_repeats_by_length_are_capped_too(data_fixture: DataFixture) -> None:
    with pytest.raises(DataError, match=r"^data\.max_epochs is 4; .* would be taken 6 times"):
        data_fixture.run('data.length_weights={">=1": 6}', "data.max_epochs=4")
    assert not list((data_fixture.folder / "cache").rglob("plan.arrow"))


def test_a_source_that_is_all_held_out_is_refused_as_empty(data_fixture: DataFixture) -> None:
    for path in (data_fixture.folder / "notes").iterdir():
        if not is_heldout(path.name, 0.2):
            path.unlink()
    weights = ("data.sources.books.weight=0.5", "data.sources.notes.weight=0.5")
    with pytest.raises(DataError, match=r"^data\.sources\.notes has no tokens to train on; "):
        data_fixture.run(*weights, "data.total_tokens=3000")


def test_a_mixture_other_than_the_default_is_printed(
    data_fixture: DataFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    data_fixture.run()
    assert "mixture" not in capsys.readouterr().out
    data_fixture.run(
        "mixture=ultralong",
        "data.sources.notes.length_weights={}",
        "data.sources.books.max_len=9999",
    )
    line = (
        "mixture: ultralong; expected repeats <4K 0.1, >8K 2; expected repeats of notes all 1; "
        "books of 1 to 9,999 tokens; a document at most 20 times"
    )
    assert line in capsys.readouterr().out


def test_one_folder_with_two_piece_lengths(data_fixture: DataFixture) -> None:
    """ProLong's pieces of 512K and 64K tokens at a small scale: two sources share one store."""
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
    heldout = result.folders.heldout_text(data_fixture.config(*overrides, sources=()).data)
    assert len(heldout.stores) == 1
