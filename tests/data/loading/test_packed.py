"""Sequences of plans on disk: their tokens, any slice of them, and which tokens a slice reads."""

import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import RankPosition, packed, planned, stored, written

from ropewalk.conf.sources import SourceConfig
from ropewalk.data.loading.collate import Row
from ropewalk.data.loading.loader import BatchLoader
from ropewalk.data.loading.packed import DataArtifacts, PackedSequences
from ropewalk.data.loading.pose import Pose
from ropewalk.data.packing.packers import PACKERS

BEGIN, END = 60001, 60002


@pytest.fixture
def sequences(tmp_path: Path) -> PackedSequences:
    """Two stores of three documents; token t of document d is 1000 d + t."""
    documents = [1000 * d + np.arange(20 + d) for d in range(6)]
    stores = [stored(tmp_path / "one", documents[:3]), stored(tmp_path / "two", documents[3:])]
    rows = [[(4, 3, 6), (0, 0, 4)], [(2, 21, 1)], [(5, 0, 10)], [(3, 22, 1), (2, 0, 2)]]
    return PackedSequences(planned(tmp_path / "plan", rows, seq_len=10), stores)


def test_sequence_reads_its_pieces_from_the_right_stores(sequences: PackedSequences) -> None:
    assert len(sequences) == 4
    assert sequences[0].input_ids.tolist() == [4003, 4004, 4005, 4006, 4007, 4008, 0, 1, 2, 3]
    assert sequences[1].input_ids.tolist() == [2021] + [0] * 9
    assert sequences[2].input_ids.tolist() == list(range(5000, 5010))
    assert sequences[3].input_ids.tolist() == [3022, 2000, 2001] + [0] * 7
    assert sequences[3].cu_seqlens.tolist() == [0, 1, 3, 10]


@pytest.mark.parametrize("sp_size", [1, 2])
def test_the_source_of_each_token_follows_from_the_plan(
    sequences: PackedSequences, sp_size: int
) -> None:
    """Documents 3 to 5, tokens from 3,000 on, lie in the second store."""
    assert [part.tolist() for part in sequences.piece_sources(0)] == [[6, 4], [1, 0]]
    for rank in range(sp_size):
        mesh = RankPosition(sp_rank=rank, sp_size=sp_size)
        loader = BatchLoader(sequences, mesh, seed=0, micro_batch_size=2, batch_ramp=[(0, 2)])
        for refs, row in zip(loader.local_micro_batches(3), loader.micro_batches([3]), strict=True):
            assert loader.token_sources(refs).tolist() == (row.input_ids >= 3000).tolist()


def test_boundary_tokens_surround_a_document_and_not_a_piece(tmp_path: Path) -> None:
    """Documents of 6, 3 and 2 tokens, the first in two pieces."""
    documents = [10 * d + np.arange(n) for d, n in ((1, 6), (2, 3), (3, 2))]
    rows = [[(1, 0, 5), (0, 0, 4)], [(0, 4, 4), (2, 0, 4)]]
    sequences = written(tmp_path, documents, rows, seq_len=10, begin=BEGIN, end=END).sequences()
    assert sequences[0].input_ids.tolist() == [60001, 20, 21, 22, 60002, 60001, 10, 11, 12, 0]
    assert sequences[0].labels.tolist() == [20, 21, 22, 60002, -100, 10, 11, 12, -100, -100]
    assert sequences[0].position_ids.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 0]
    assert sequences[0].cu_seqlens.tolist() == [0, 5, 9, 10]
    assert sequences[1].input_ids.tolist() == [13, 14, 15, 60002, 60001, 30, 31, 60002, 0, 0]
    assert sequences[1].labels.tolist() == [14, 15, 60002, -100, 30, 31, 60002, -100, -100, -100]
    assert [sequences.num_labels(n) for n in (0, 1)] == [7, 6]
    assert [sequences.num_tokens(n) for n in (0, 1)] == [9, 8]


@pytest.mark.parametrize("number", range(4))
def test_counts_by_the_plan_are_those_of_the_row(sequences: PackedSequences, number: int) -> None:
    row = sequences[number]
    assert sequences.num_labels(number) == int((row.labels != -100).sum())
    assert sequences.attention_work(number) == sum(n * n for n in np.diff(row.cu_seqlens).tolist())


def test_a_slice_has_its_last_label_and_the_borders_of_the_sequence(
    sequences: PackedSequences,
) -> None:
    """By hand: a border before the slice, one inside, and an end inside a piece."""
    part = sequences.read(0, low=4, high=8)
    assert part.input_ids.tolist() == [4007, 4008, 0, 1]
    assert part.labels.tolist() == [4008, -100, 1, 2]
    assert part.position_ids.tolist() == [4, 5, 0, 1]
    assert part.cu_seqlens.tolist() == [0, 6, 10]
    assert sequences.read(3, low=2, high=5).labels.tolist() == [-100] * 3


@st.composite
def choices(draw: st.DrawFn) -> dict[str, Any]:
    parts = draw(st.sampled_from([1, 2, 3, 8]))
    return {
        "lengths": draw(st.lists(st.integers(1, 90), min_size=1, max_size=12)),
        "parts": parts,
        "seq_len": parts * draw(st.integers(2, 12)),
        "packer": draw(st.sampled_from(sorted(PACKERS))),
        "begin": draw(st.sampled_from([None, BEGIN])),
        "end": draw(st.sampled_from([None, END])),
        "document_mask": draw(st.booleans()),
        "positions": draw(st.sampled_from(["restart", "continue"])),
        "chunks": draw(st.sampled_from([0, 2, 3])),
        "seed": draw(st.integers(0, 2)),
    }


def read_from(folder: Path, case: dict[str, Any]) -> PackedSequences:
    documents = [1000 * d + np.arange(n) for d, n in enumerate(case["lengths"])]
    count = (case["begin"] is not None) + (case["end"] is not None)
    rows = packed(
        case["lengths"],
        case["seq_len"],
        packer=case["packer"],
        seed=case["seed"],
        boundary_tokens=count,
    )
    metadata = {k: case[k] for k in ("seq_len", "begin", "end", "document_mask", "positions")}
    artifacts = written(folder, documents, rows, **metadata)
    if case["chunks"]:
        skips = {
            "target_length": 4 * case["seq_len"],
            "chunks": case["chunks"],
            "seed": case["seed"],
        }
        artifacts = replace(artifacts, pose=skips)
    return artifacts.sequences()


@settings(max_examples=60, deadline=None)
@given(choices())
def test_slices_end_to_end_are_the_full_row(case: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sequences = read_from(Path(folder), case)
        width = case["seq_len"] // case["parts"]
        for number in range(len(sequences)):
            full = sequences.read(number, epoch=1)
            slices = [
                sequences.read(number, 1, k * width, (k + 1) * width) for k in range(case["parts"])
            ]
            for name in ("input_ids", "labels", "position_ids"):
                assert (
                    np.concatenate([getattr(s, name) for s in slices]).tolist()
                    == getattr(full, name).tolist()
                )
            assert all(s.cu_seqlens.tolist() == full.cu_seqlens.tolist() for s in slices)


@settings(max_examples=40, deadline=None)
@given(choices())
def test_rows_hold_the_documents_token_by_token(case: dict[str, Any]) -> None:
    """The row is built anew from the texts and the plan, without the loader."""
    with tempfile.TemporaryDirectory() as folder:
        sequences = read_from(Path(folder), case)
        count = (case["begin"] is not None) + (case["end"] is not None)
        rows = packed(
            case["lengths"],
            case["seq_len"],
            packer=case["packer"],
            seed=case["seed"],
            boundary_tokens=count,
        )
        texts = [
            [BEGIN] * bool(case["begin"])
            + [1000 * d + t for t in range(n)]
            + [END] * bool(case["end"])
            for d, n in enumerate(case["lengths"])
        ]
        for number, pieces in enumerate(rows):
            ids = [texts[d][s : s + n] for d, s, n in pieces]
            padding = case["seq_len"] - sum(map(len, ids))
            row = sequences[number]
            assert row.input_ids.tolist() == sum(ids, []) + [0] * padding
            assert (
                row.labels.tolist()
                == [x for part in ids for x in [*part[1:], -100]] + [-100] * padding
            )


class RecordingStore:
    """A store that records which tokens of which documents are read."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.seen = inner, list[tuple[int, int, int]]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def document(self, index: int, start: int, length: int) -> np.ndarray:
        self.seen.append((index, start, length))
        return self.inner.document(index, start, length)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("low", "high", "seen"),
    [
        (0, 4, [(0, 3, 5)]),  # one token more: the last label
        (0, 6, [(0, 3, 6)]),  # ends with the piece, whose last token has no label
        (4, 8, [(0, 7, 2), (1, 0, 3)]),
        (7, 9, [(1, 1, 3)]),
        (12, 16, []),  # padding
    ],
)
def test_a_slice_reads_only_the_pieces_that_it_touches(
    tmp_path: Path, low: int, high: int, seen: list[tuple[int, int, int]]
) -> None:
    sequences = written(
        tmp_path, [np.arange(20)] * 3, [[(0, 3, 6), (1, 0, 5)]], seq_len=16
    ).sequences()
    store = RecordingStore(sequences.stores[0])
    sequences.stores = [store]  # type: ignore[list-item]
    sequences.read(0, 0, low, high)
    assert store.seen == seen


def test_skipped_positions_belong_to_each_document_under_the_mask(tmp_path: Path) -> None:
    folders = written(tmp_path, [np.arange(20)] * 3, [[(0, 0, 10), (1, 0, 8)]], seq_len=24)
    unskipped = folders.sequences()[0]
    sequences = replace(folders, pose={"target_length": 1000, "chunks": 2, "seed": 0}).sequences()
    rows = [sequences.read(0, epoch) for epoch in range(20)]
    for row in rows:
        assert isinstance(row, Row) and row.input_ids.tolist() == unskipped.input_ids.tolist()
        assert row.labels.tolist() == unskipped.labels.tolist()
        assert row.position_ids[[0, 10]].tolist() == [0, 0]
        assert (
            max(np.diff(row.position_ids[:10]).tolist()) > 1
            or max(np.diff(row.position_ids[10:18]).tolist()) > 1
        )
    assert len({tuple(row.position_ids.tolist()) for row in rows}) == 20


def test_without_the_mask_the_whole_sequence_skips_as_one(tmp_path: Path) -> None:
    rows = [[(0, 0, 10), (1, 0, 8)]]
    folders = written(
        tmp_path, [np.arange(20)] * 3, rows, seq_len=24, document_mask=False, positions="continue"
    )
    sequences = replace(folders, pose={"target_length": 1000, "chunks": 2, "seed": 0}).sequences()
    assert sequences.pose == Pose(1000, 2, 0)
    steps = np.diff(sequences[0].position_ids)
    assert (steps == 1).sum() == 22 and steps.max() > 1 and sequences[0].position_ids[0] == 0


def test_heldout_text_is_that_of_sources_whose_labels_count(tmp_path: Path) -> None:
    names = ("counted", "context", "twin")
    folders = {name: stored(tmp_path / name, [np.arange(5)]) for name in names[:2]}
    folders["twin"] = folders["counted"]
    plan = planned(tmp_path / "plan", [[(0, 0, 4)]], seq_len=4)
    sources = {name: SourceConfig(path="x") for name in names}
    artifacts = DataArtifacts(plan, folders, tmp_path, 0.0, context_only=["context"])
    text = artifacts.heldout_text(SimpleNamespace(sources=sources))  # type: ignore[arg-type]
    assert (list(text.stores), text.context_only) == (["counted + twin"], ["context"])
