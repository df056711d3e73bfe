"""The token store: documents are read as written, and all others are counted."""

import hashlib
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import finished, stored

from ropewalk.conf.errors import DataError
from ropewalk.data.sources import Document, Refusal
from ropewalk.data.tokens import merge, store, write
from ropewalk.data.tokens.arrow_table import read_table, to_arrow, to_numpy


def text(opened: store.Store, index: int) -> str:
    return bytes(opened.document(index).astype(np.uint8)).decode()


def test_documents_are_read_as_written(tmp_path: Path) -> None:
    texts = {"a": "rope", "b": "walking é", "c": "x"}
    opened = stored(tmp_path / "new", [Document(*item) for item in texts.items()])
    assert {name: text(opened, i) for i, name in enumerate(opened.ids)} == texts
    assert bytes(opened.document(1, 2, 3).astype(np.uint8)) == b"lki"
    assert bytes(opened.document(1, 2).astype(np.uint8)) == "walking é".encode()[2:]
    assert opened.length.sum() == len(opened.tokens) == opened.metadata["tokens"]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.text("ab\né", min_size=1, max_size=9), max_size=4), min_size=1, max_size=5)
)
def test_shards_are_read_as_one_store(
    tmp_path_factory: pytest.TempPathFactory, texts: list[list[str]]
) -> None:
    """Also an empty shard at any position, and the empty slice at a document's end."""
    folder = tmp_path_factory.mktemp("store")
    parts = [[Document(f"{s}/{d}", t) for d, t in enumerate(part)] for s, part in enumerate(texts)]
    opened, flat = stored(folder / "new", *parts), [d for part in parts for d in part]
    assert list(opened.ids) == [d.id for d in flat]
    assert [text(opened, i) for i in range(len(flat))] == [d.text for d in flat]
    assert all(len(opened.document(i, int(n), 0)) == 0 for i, n in enumerate(opened.length))
    assert b"".join(
        (folder / "new" / f"{s:05}" / "tokens.bin").read_bytes() for s in range(len(texts))
    ) == b"".join(np.frombuffer(d.text.encode(), np.uint8).astype("<u2").tobytes() for d in flat)


def test_a_document_is_a_view_of_its_file(tmp_path: Path) -> None:
    opened = stored(tmp_path / "new", [Document("a", "rope")], [Document("b", "yarn")])
    for index in range(2):
        view = opened.document(index, 1, 2)
        assert not view.flags.owndata and not view.flags.writeable
        assert np.shares_memory(view, opened.document(index))


def test_table_holds_characters_and_offsets_in_the_shard(tmp_path: Path) -> None:
    stored(tmp_path / "new", [Document("a", "éé"), Document("b", "xyz")], [Document("c", "éé")])
    table = read_table(tmp_path / "new" / store.DOCUMENTS).to_pydict()
    hashes = table.pop("text_hash")
    assert table == {
        "id": ["a", "b", "c"],
        # the first 8 bytes of sha256, by `printf a | sha256sum`
        "key": [0xCA978112CA1BBDCA, 0x3E23E8160039594A, 0x2E7D2C03A9507AE2],
        "shard": [0, 0, 1],
        "offset": [0, 4, 0],
        "tokens": [4, 3, 4],
        "characters": [2, 3, 2],
    }
    assert hashes[0] == hashes[2] != hashes[1]


def test_metadata_holds_each_shard_and_the_hash_of_its_bytes(tmp_path: Path) -> None:
    opened = stored(
        tmp_path / "new", [Document("a", "rope"), Document("b", "x")], [Document("c", "yarns")]
    )
    expected = [
        hashlib.sha256((tmp_path / "new" / n / "tokens.bin").read_bytes()).hexdigest()
        for n in ("00000", "00001")
    ]
    assert opened.metadata["shards"] == [
        {"documents": 2, "tokens": 5, "sha256": expected[0]},
        {"documents": 1, "tokens": 5, "sha256": expected[1]},
    ]
    assert (opened.metadata["documents"], opened.metadata["tokens"]) == (3, 10)


def test_refusals_are_counted_by_reason_over_all_shards(tmp_path: Path) -> None:
    first = [Refusal("1", "empty"), Document("a", "x"), Refusal("2", "not UTF-8")]
    metadata = stored(tmp_path / "new", first, [Refusal("3", "empty", 40)]).metadata
    assert (metadata["documents"], metadata["refused"]) == (1, {"empty": 41, "not UTF-8": 1})


def test_a_document_without_tokens_is_counted_not_stored(tmp_path: Path) -> None:
    encode = lambda texts: [np.zeros(0 if t == "b" else 2, np.uint32) for t in texts]  # noqa: E731
    opened = stored(tmp_path / "new", [Document(n, n) for n in "abc"], encode=encode)
    assert list(opened.ids) == ["a", "c"]
    assert opened.metadata["refused"] == {"no tokens": 1}


def test_a_document_with_a_repeated_id_is_not_in_the_table(tmp_path: Path) -> None:
    first, second = (
        [Document("a", "rope"), Document("b", "x"), Document("a", "other")],
        [Document("b", "yarn"), Document("c", "z")],
    )
    opened = stored(tmp_path / "new", first, second)
    assert [(name, text(opened, i)) for i, name in enumerate(opened.ids)] == [
        ("a", "rope"),
        ("b", "x"),
        ("c", "z"),
    ]
    assert (opened.metadata["documents"], opened.metadata["tokens"]) == (3, 6)
    assert opened.metadata["refused"] == {"id seen before": 2}


@given(st.lists(st.sampled_from("abcdef"), max_size=20), st.integers(1, 6))
def test_repeated_ids_are_found_also_among_equal_keys(names: list[str], keys: int) -> None:
    """Against a set; few keys, so that different ids have one."""
    expected = [row for row, name in enumerate(names) if name in names[:row]]
    column = pa.chunked_array([pa.array(names[:3], pa.string()), pa.array(names[3:], pa.string())])
    assert (
        merge.rows_of_repeated_ids(
            np.array([ord(n) % keys for n in names], dtype=np.uint64), column
        )
        == expected
    )


def test_token_id_outside_the_vocabulary_is_refused_with_the_document(tmp_path: Path) -> None:
    """It would not even fit: 65,536 words and fewer are kept in 16 bits."""
    documents = [Document("a", "x"), Document("b", "y")]

    def encode(texts: list[str]) -> list[np.ndarray]:
        return [np.array([7, 70_000 if t == "y" else 8], np.uint32) for t in texts]

    with pytest.raises(
        DataError,
        match=r"^document b of source mine has token id 70000; ids must be below .* 300; \S",
    ):
        stored(tmp_path / "new", documents, encode=encode)


def test_the_table_is_the_same_for_any_number_of_rows_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [Document(str(i), "rope " * (i % 7 + 1)) for i in range(50)]
    stored(tmp_path / "one", documents)
    monkeypatch.setattr(write, "ROWS", 8)
    stored(tmp_path / "two", documents)
    assert read_table(tmp_path / "two" / "00000" / store.DOCUMENTS)["id"].num_chunks == 7
    assert read_table(tmp_path / "one" / store.DOCUMENTS).equals(
        read_table(tmp_path / "two" / store.DOCUMENTS)
    )


def test_progress_is_counted_in_characters(tmp_path: Path) -> None:
    progress: list[int] = []
    stored(
        tmp_path / "new", [Document("a", "éé"), Document("b", "xyz")], on_progress=progress.append
    )
    assert progress == [2, 3]


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(300, "uint16"), (65_536, "uint16"), (65_537, "uint32")]
)
def test_largest_id_of_a_vocabulary_fits(tmp_path: Path, vocab_size: int, dtype: str) -> None:
    largest = np.array([vocab_size - 1, 0], np.uint32)
    opened = stored(
        tmp_path / "new", [Document("a", "x")], encode=lambda _: [largest], vocab_size=vocab_size
    )
    assert (opened.metadata["dtype"], opened.document(0).tolist()) == (dtype, [vocab_size - 1, 0])
    assert opened.document(0).dtype == np.dtype(dtype)


def test_heldout_share_is_met_and_independent_of_order(tmp_path: Path) -> None:
    names = [f"document {i}" for i in range(4000)]
    heldout = {name for name in names if store.is_heldout(name, 0.1)}
    assert 0.08 < len(heldout) / len(names) < 0.12
    opened = stored(tmp_path / "new", [Document(n, "x") for n in reversed(names)], heldout=0.1)
    assert {
        name for name, is_heldout in zip(opened.ids, opened.heldout, strict=True) if is_heldout
    } == heldout
    assert opened.heldout_counts() == {
        "heldout_documents": len(heldout),
        "heldout_tokens": len(heldout),
    }


@pytest.mark.parametrize("share", [0.0, 1e-19, 0.2, 1 / 3, 0.9999999999999999])
def test_the_share_splits_keys_exactly_as_whole_numbers(tmp_path: Path, share: float) -> None:
    """On both sides of the border, where neighbours are equal in float64."""
    border = Fraction(share) * 2**64
    near = {min(max(int(border) + step, 0), 2**64 - 1) for step in range(-3, 4)}
    below = store._heldout_below(share)
    for key in near:
        assert (np.uint64(key) < np.uint64(below)) == (key < border)


def test_a_larger_share_includes_the_documents_of_a_smaller_one() -> None:
    names = [str(i) for i in range(1000)]
    small, large = ({n for n in names if store.is_heldout(n, share)} for share in (0.05, 0.3))
    assert small < large
    assert not any(store.is_heldout(n, 0.0) for n in names)


def synthetic(folder: Path, documents: list[np.ndarray]) -> store.Store:
    folder.with_suffix(".tmp").mkdir()
    metadata = merge.synthetic_store(folder.with_suffix(".tmp"), "made", documents, 300)
    return finished(folder, {"kind": "repeat", **metadata}, heldout=0.99)


def test_synthetic_documents_are_never_held_out(tmp_path: Path) -> None:
    opened = synthetic(tmp_path / "new", [np.arange(4), np.arange(7)])
    assert not opened.heldout.any()
    assert [opened.document(i).tolist() for i in range(2)] == [[0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6]]


def test_empty_store_opens(tmp_path: Path) -> None:
    opened = synthetic(tmp_path / "new", [])
    assert (len(opened.tokens), list(opened.ids), int(opened.length[~opened.heldout].sum())) == (
        0,
        [],
        0,
    )


def test_ids_are_indexed_and_sliced(tmp_path: Path) -> None:
    opened = stored(tmp_path / "new", [Document(n, n) for n in "abc"])
    assert (opened.ids[1], opened.ids[-1], opened.ids.index("b"), list(opened.ids[1:])) == (
        "b",
        "c",
        1,
        ["b", "c"],
    )
    with pytest.raises(IndexError):
        opened.ids[3]


def test_unfinished_store_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="not finished"):
        store.load(tmp_path, 0.0)


@pytest.mark.parametrize("values", [[], [3], [1, 2, 3, 4]])
@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.uint8()])
def test_a_column_of_numbers_equals_pylist(values: list[int], kind: pa.DataType) -> None:
    parts = pa.chunked_array([values, values[:2]], type=kind)
    for column in (parts, parts.slice(1), pa.array(values, kind), pa.array(values, kind).slice(1)):
        numbers = to_numpy(column)
        assert numbers.tolist() == column.to_pylist() and numbers.dtype == kind.to_pandas_dtype()


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a", "", "é日", "b"], pa.string()),
        ([2**64 - 1, 0], pa.uint64()),
        ([-1, 2**62], pa.int64()),
        ([], pa.string()),
    ],
)
def test_a_column_equals_pyarrows_array(values: list[object], kind: pa.DataType) -> None:
    array = to_arrow(values, kind)
    array.validate(full=True)
    assert array.equals(pa.array(values, kind))


def test_a_store_is_written_and_opened_without_pandas(tmp_path: Path) -> None:
    """pyarrow's `array` and `to_numpy` import it: half a second of every start."""
    code = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from stores import stored
from ropewalk.data.sources import Document
one, two = [Document("a", "rope"), Document("b", "yarn")], [Document("a", "x")]
opened = stored(Path(sys.argv[2]), one, two, heldout=0.5)
assert opened.ids[1] == "b" and opened.metadata["refused"] == {"id seen before": 1}
sys.exit("pandas" in sys.modules)
"""
    subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            str(Path(__file__).parents[2] / "helpers"),
            str(tmp_path / "new"),
        ],
        check=True,
    )
    opened, names = store.load(tmp_path / "new", 0.5), ["a", "b"]
    assert opened.heldout.dtype == bool and opened.heldout.tolist() == [
        store.is_heldout(i, 0.5) for i in names
    ]


def test_a_missing_file_of_tokens_has_no_bytes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is 0 bytes; by its manifest it must be 20; mend it"):
        store.verify_size(tmp_path, {"tokens": 10}, np.dtype(np.uint16), "mend it")
