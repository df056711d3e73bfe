"""Datasets by name, from a folder that `datasets` loads in the same way, without a network."""

import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ropewalk.conf.errors import DataError
from ropewalk.conf.sources import SourceConfig
from ropewalk.data import sources
from ropewalk.data.sources import Document, hub

Read = Any


@pytest.fixture
def dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    for split, shards in (("train", 3), ("test", 1)):
        for n in range(shards):
            rows = [
                {"text": f"{split} {n} {i}", "title": f"T{i}", "n": 10 * n + i} for i in range(4)
            ]
            path = folder / f"{split}-{n:05}-of-{shards:05}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_split_equals_the_one_that_datasets_loads_with_a_unit_a_shard(
    read: Read, dataset: Path
) -> None:
    from datasets import load_dataset

    expected = load_dataset(str(dataset), split="train")["text"][:]
    good, bad = read(dataset, "hub", split="train")
    assert (list(good.values()), bad) == (expected, {})
    assert list(good)[3:6] == ["train/0:3", "train/1:0", "train/1:1"]
    source = SourceConfig(path=str(dataset), kind="hub", split="train")
    listing = pickle.loads(pickle.dumps(sources.list_source(source, "mine")))
    assert len(listing.units) == 3
    last = listing.documents(listing.units[2])
    assert [i.text for i in last] == expected[8:]  # type: ignore[union-attr]


def test_columns_are_read_as_from_files(read: Read, dataset: Path) -> None:
    good, bad = read(dataset, "hub", split="test", template="{title}: {text}", id_key="n")
    assert (good, bad) == ({str(i): f"T{i}: test 0 {i}" for i in range(4)}, {})
    assert read(dataset, "hub", split="test", text_key="n") == (
        {},
        {f"test/0:{i}": "n is not text" for i in range(4)},
    )


@pytest.mark.parametrize("split", [None, "dev", "train[:10%]"])
def test_an_unknown_split_is_refused(read: Read, dataset: Path, split: str | None) -> None:
    with pytest.raises(
        DataError,
        match=r"^data\.sources\.mine\.split is .*; the dataset has train, test; set it to one",
    ):
        read(dataset, "hub", split=split)


def test_only_split_needs_no_name(read: Read, dataset: Path) -> None:
    for path in dataset.glob("test-*"):
        path.unlink()
    assert len(read(dataset, "hub")[0]) == 12


def test_missing_column_is_refused_before_a_row_is_read(read: Read, dataset: Path) -> None:
    with pytest.raises(
        DataError, match="reads column body; the dataset has text, title, n; set text_key"
    ):
        read(dataset, "hub", split="train", text_key="body")


@pytest.mark.parametrize("settings", [{"config": "nope"}, {}])
def test_a_failed_load_is_reported_in_one_line(
    read: Read, dataset: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    path = dataset if settings else "org/nowhere"
    with pytest.raises(
        DataError,
        match=r"^data\.sources\.mine\.path is .*; kind hub needs a dataset that can be loaded; ",
    ):
        read(path, "hub", **settings)


def test_damaged_rows_stop_the_run(read: Read, dataset: Path) -> None:
    (dataset / "train-00001-of-00003.jsonl").write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(
        DataError,
        match=r"shard 1 of train broke off at row \d+ \(.*\); run again, or correct the dataset",
    ):
        read(dataset, "hub", split="train")


def test_cache_key_changes_with_the_files_and_not_with_their_folder(dataset: Path) -> None:
    import os
    import shutil

    def cache_key(folder: Path, split: str = "train") -> Any:
        listing = sources.list_source(
            SourceConfig(path=str(folder), kind="hub", split=split), "mine"
        )
        return listing.identity(dataset.parent / "cache")

    before = cache_key(dataset)
    assert before == {"kind": "hub", "text_key": "text", "split": "train", "files": before["files"]}
    assert len(before["files"]) == 3 and json.loads(json.dumps(before)) == before
    shutil.copytree(dataset, dataset.parent / "copy")
    assert cache_key(dataset.parent / "copy") == before
    assert cache_key(dataset, "test") != before
    file = dataset / "train-00000-of-00003.jsonl"
    status = file.stat()
    os.utime(file, (7, 7))
    assert cache_key(dataset) == before
    file.write_text(file.read_text().swapcase())
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cache_key(dataset) != before


def test_units_are_read_at_the_listed_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch may move between two units; the commit of the files, from `datasets`, does not."""
    calls: list[Any] = []
    files = SimpleNamespace(origin_metadata=[("org/name", "c0ffee")] * 2)
    builder = SimpleNamespace(
        config=SimpleNamespace(data_files={"train": files}),
        info=SimpleNamespace(splits={"train": SimpleNamespace(num_bytes=700)}),
    )

    class Rows:
        num_shards = 2
        column_names = None

        def shard(self, count: int, number: int) -> Any:
            return [{"text": f"{number} of {count}"}]

    monkeypatch.setattr(
        "datasets.load_dataset_builder", lambda path, **kwargs: calls.append(kwargs) or builder
    )
    monkeypatch.setattr(
        "datasets.load_dataset", lambda path, **kwargs: calls.append(kwargs) or Rows()
    )
    hub._stream.cache_clear()
    source = SourceConfig(path="org/name", kind="hub", revision="main", config="en")
    listing = sources.list_source(source, "mine")
    items = [item for unit in listing.units for item in listing.documents(unit)]
    texts = [item.text for item in items if isinstance(item, Document)]
    assert texts == ["0 of 2", "1 of 2"] and [u.size for u in listing.units] == [350, 350]
    assert calls == [
        {"name": "en", "revision": "main"},
        {"name": "en", "split": "train", "revision": "c0ffee", "streaming": True},
    ]
    assert listing.identity(Path("unused"))["files"] == [["org/name", 0, "c0ffee"]] * 2
    hub._stream.cache_clear()
