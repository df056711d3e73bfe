"""The data stage on a folder of small texts, with its results counted from the files."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from data_fixture import SYNTHETIC, DataFixture
from stores import content_of

from ropewalk.conf.errors import DataError
from ropewalk.data import stage
from ropewalk.data.tokens import store


def test_the_plan_holds_every_training_token_once_and_no_held_out_token(
    data_fixture: DataFixture,
) -> None:
    result = data_fixture.run()
    for name, pieces in result.by_source().items():
        documents = result.folders.store(name)
        tokens = Counter((d, t) for d, start, size in pieces for t in range(start, start + size))
        train = np.flatnonzero(~documents.heldout).tolist()
        assert tokens == Counter((d, t) for d in train for t in range(int(documents.length[d])))
        assert documents.heldout.any()


def test_sequences_hold_the_text_of_the_files(data_fixture: DataFixture) -> None:
    """Decoded sequences are compared with the files."""
    from transformers import AutoTokenizer

    result = data_fixture.run()
    tokenizer = AutoTokenizer.from_pretrained(str(result.folders.tokenizer))
    all_text = [
        p.read_text() for s in ("books", "notes") for p in (data_fixture.folder / s).iterdir()
    ]
    sequences = result.folders.sequences()
    for number in range(len(sequences)):
        row = sequences[number]
        for low, high, piece in zip(
            row.cu_seqlens, row.cu_seqlens[1:], result.pieces()[number], strict=False
        ):
            assert high - low == piece["length"]
            assert any(tokenizer.decode(row.input_ids[low:high]) in text for text in all_text)


def test_two_sequence_lengths_share_one_token_store(data_fixture: DataFixture) -> None:
    short = data_fixture.run(output="short")
    before = {p: p.stat().st_mtime_ns for p in (data_fixture.folder / "cache").rglob("tokens.bin")}
    long = data_fixture.run("data.seq_len=128", output="long")
    after = {p: p.stat().st_mtime_ns for p in (data_fixture.folder / "cache").rglob("tokens.bin")}
    assert len(before) == 2 and before == after
    assert short.folders.stores == long.folders.stores and short.folders.plan != long.folders.plan
    assert (short.ledger["plan"]["tokens"], long.ledger["plan"]["seq_len"]) == (
        long.ledger["plan"]["tokens"],
        128,
    )


def test_second_run_skips(data_fixture: DataFixture) -> None:
    data_fixture.run()
    message = data_fixture.run().message
    assert message == "data: done before with the same settings and inputs; skipped"


def test_changed_file_is_read_again(data_fixture: DataFixture) -> None:
    before = data_fixture.run().ledger["sources"]["notes"]["tokens"]
    (data_fixture.folder / "notes" / "00.txt").write_text("rope " * 500)
    again = data_fixture.run()
    assert "redone" in again.message
    assert again.ledger["sources"]["notes"]["tokens"] > before


def test_second_cache_gets_the_same_bytes(data_fixture: DataFixture) -> None:
    data_fixture.run(*SYNTHETIC, sources=("books",))
    data_fixture.run(*SYNTHETIC, sources=("books",), cache="other", output="again")
    files = content_of(data_fixture.folder / "cache")
    assert len([name for name in files if name.endswith((".bin", ".arrow"))]) == 7
    assert files == content_of(data_fixture.folder / "other")


def test_order_of_the_sources_in_the_settings_does_not_mix_up_their_texts(
    data_fixture: DataFixture,
) -> None:
    """Both orders share a cache; each plan must read from its own stores."""
    from transformers import AutoTokenizer

    for output, sources in (("one", ("books", "notes")), ("two", ("notes", "books"))):
        result = data_fixture.run(output=output, sources=sources)
        for name, pieces in result.by_source().items():
            expected = result.ledger["sources"][name]["tokens_in_plan"]
            documents = result.folders.store(name)
            assert sum(length for _, _, length in pieces) == expected
            assert all(
                start + length <= documents.length[d] and not documents.heldout[d]
                for d, start, length in pieces
            )
        assert AutoTokenizer.from_pretrained(str(result.folders.tokenizer)).vocab_size <= 300


def test_corpus_smaller_than_one_sequence_is_refused_with_the_numbers(
    data_fixture: DataFixture,
) -> None:
    with pytest.raises(DataError) as error:
        data_fixture.run("data.seq_len=100000")
    folders = [p for p in (data_fixture.folder / "cache" / "tokens").iterdir() if p.is_dir()]
    stores = [store.load(folder, 0.2) for folder in folders]
    total = sum(int(s.length[~s.heldout].sum()) for s in stores)
    assert f"data.seq_len is 100000; the sources give {total} training tokens" in str(error.value)


def test_source_without_a_readable_document_is_refused_with_the_reasons(
    data_fixture: DataFixture,
) -> None:
    (data_fixture.folder / "empty").mkdir()
    (data_fixture.folder / "empty" / "a.txt").write_text(" ")
    with pytest.raises(
        DataError, match=r"data\.sources\.empty\.path .* no document could be read \(empty: 1\)"
    ):
        data_fixture.run(sources=("books", "empty"))


def test_folder_without_files_is_refused(data_fixture: DataFixture) -> None:
    (data_fixture.folder / "empty").mkdir()
    with pytest.raises(DataError, match=r"data\.sources\.empty\.path .* it holds no file"):
        data_fixture.run(sources=("books", "empty"))


def test_no_user_path_is_written_into_any_artifact(data_fixture: DataFixture) -> None:
    data_fixture.run(*SYNTHETIC, sources=("books",))
    for path in [
        *(data_fixture.folder / "cache").rglob("*"),
        *(data_fixture.folder / "out").rglob("*"),
    ]:
        assert path.is_dir() or str(data_fixture.folder).encode() not in path.read_bytes(), (
            path.name
        )


def write_rows(data_fixture: DataFixture, *rows: dict[str, Any]) -> None:
    """Replace the files of books by one file of rows."""
    (data_fixture.folder / "books").rename(data_fixture.folder / "old")
    (data_fixture.folder / "books").mkdir()
    (data_fixture.folder / "books" / "a.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )


def test_rows_become_documents_by_template_and_id_and_others_are_refused(
    data_fixture: DataFixture,
) -> None:
    from transformers import AutoTokenizer

    rows = [{"title": f"Yarn {i}", "body": "rope " * 30, "key": f"b{i}"} for i in range(20)]
    write_rows(
        data_fixture,
        *rows,
        {"title": "x", "key": "no body"},
        {"title": "x", "body": 3, "key": "n"},
        {"title": "a\0", "body": "b"},
    )
    overrides = ("data.sources.books.template={title}: {body}", "data.sources.books.id_key=key")
    result = data_fixture.run(*overrides, sources=("books",))
    documents = result.folders.store("books")
    tokenizer = AutoTokenizer.from_pretrained(str(result.folders.tokenizer))
    texts = {id: tokenizer.decode(documents.document(i)) for i, id in enumerate(documents.ids)}
    assert texts == {row["key"]: f"{row['title']}: {row['body']}" for row in rows}
    assert result.ledger["sources"]["books"]["refused"] == {
        "body is not text": 1,
        "no body": 1,
        "no key": 1,
    }


def test_each_way_to_read_rows_has_its_own_store_and_tokenizer(data_fixture: DataFixture) -> None:
    rows = ({"text": f"rope {i} " * 30, "body": f"walk {i} " * 30, "key": i} for i in range(20))
    write_rows(data_fixture, *rows)
    results = [
        data_fixture.run(*overrides, sources=("books",), output=f"o{number}")
        for number, overrides in enumerate(
            [
                (),
                ("data.sources.books.text_key=body",),
                ("data.sources.books.template={text}{body}",),
                ("data.sources.books.id_key=key",),
            ]
        )
    ]
    assert len({str(result.folders.stores) for result in results}) == 4
    assert len(list((data_fixture.folder / "cache" / "tokenizers").glob("*/manifest.json"))) == 4


def test_html_pages_behind_a_url_become_documents(data_fixture: DataFixture) -> None:
    import fsspec

    for i in range(20):
        page = f"<title>x</title><script>zzz</script><p>{'rope ' * 40}</p><p>walk {i}"
        fsspec.filesystem("memory").pipe(f"/pages/{i}.html", page.encode())
    result = data_fixture.run("data.sources.books.path=memory://pages", sources=("books",))
    assert result.ledger["sources"]["books"]["documents"] == 20
    assert result.ledger["sources"]["books"]["refused"] == {}


def test_lost_files_of_rows_are_counted_and_warned_of(
    data_fixture: DataFixture,
) -> None:
    import gzip

    import pyarrow as pa
    import pyarrow.parquet as pq

    write_rows(data_fixture, *({"text": f"rope {i} " * 30} for i in range(20)))
    (data_fixture.folder / "books" / "b.json.gz").write_bytes(
        gzip.compress(b'{"text": "a"}\n' * 1000)[:-9]
    )
    (data_fixture.folder / "tables").mkdir()
    pq.write_table(
        pa.table({"text": [f"walk {i} " * 30 for i in range(20)]}),
        data_fixture.folder / "tables" / "a.parquet",
    )
    pq.write_table(pa.table({"body": ["x"] * 5000}), data_fixture.folder / "tables" / "b.parquet")
    result = data_fixture.run(
        f"data.sources.notes.path={data_fixture.folder / 'tables'}", sources=("books", "notes")
    )
    assert result.ledger["sources"]["books"]["refused"] == {"file: damaged gzip": 1}
    assert result.ledger["sources"]["notes"]["refused"] == {"no column text": 5000}
    warnings = [
        line
        for line in result.ledger["warnings"]
        if "are lost, whole" in line or "cannot be read" in line
    ]
    assert len(warnings) == 2 and "5,000 documents of 5,020" in warnings[1]


def test_each_store_is_opened_once(
    data_fixture: DataFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by a second run, which reuses the stores and the plan."""
    loads: Counter[str] = Counter()
    load = store.load

    def counting_load(folder: Path, heldout: float) -> store.Store:
        loads[folder.name] += 1
        return load(folder, heldout)

    monkeypatch.setattr(store, "load", counting_load)
    for _ in range(2):
        loads.clear()
        result = data_fixture.run(*SYNTHETIC, "data.sources.notes.weight=0.3")
        assert len(result.folders.stores) == 3
        assert loads == {folder.name: 1 for folder in result.folders.stores.values()}


@pytest.mark.parametrize(("tokens", "enough"), [(3, False), (4, True)])
def test_sources_without_a_token_add_none_to_the_sum(tokens: int, enough: bool) -> None:
    sources = {name: SimpleNamespace(weight=None) for name in ("full", "empty")}
    data = SimpleNamespace(sources=sources, total_tokens=None, seq_len=4)
    usable: Any = {"full": SimpleNamespace(tokens=tokens), "empty": SimpleNamespace(tokens=0)}
    config: Any = SimpleNamespace(data=data)
    if enough:
        assert stage._budgets(config, usable, None).keys() == sources.keys()
        return
    message = "seq_len is 4; the sources give 3 training tokens .full: 3, empty: 0.,"
    with pytest.raises(DataError, match=message):
        stage._budgets(config, usable, None)
