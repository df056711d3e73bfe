"""A full disk ends the stage with one line and leaves nothing that the next run cannot use."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_fixture import SYNTHETIC, DataFixture
from stores import content_of

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.errors import ConfigError
from ropewalk.data.cleaning import clean
from ropewalk.data.tokens import text_store

OVERRIDES = (*SYNTHETIC, "data.contamination.action=report")
FILES = [  # part of the cache, and its file that does not fit
    ("tokenizers", "tokenizer.json"),
    ("tokenizers", "tokenizer_config.json"),
    ("tokens", "tokens.bin"),
    ("tokens", "documents.arrow"),
    ("duplicates", "documents.npy"),
    ("contamination", "documents.npy"),
    ("plans", "plan.arrow"),
    ("plans", "manifest.json.tmp"),
]


def fill_disk(monkeypatch: pytest.MonkeyPatch, part: str, name: str) -> None:
    """Make file `name` of each folder in `part` of the cache a link to /dev/full."""
    real: Callable[..., Path] = manifest.workspace

    def workspace(output: Path, *args: Any, **kwargs: Any) -> Path:
        folder = real(output, *args, **kwargs)
        if part in output.parts:
            (folder / name).symlink_to("/dev/full")
        return folder

    for module in (manifest, text_store):
        monkeypatch.setattr(module, "workspace", workspace)


@pytest.mark.parametrize(("part", "name"), FILES)
def test_a_full_disk_is_reported_in_one_line(
    data_fixture: DataFixture, monkeypatch: pytest.MonkeyPatch, part: str, name: str
) -> None:
    with monkeypatch.context() as patched:
        fill_disk(patched, part, name)
        message = rf"^cache_dir is {data_fixture.folder / 'cache'}; its disk .* is full; [^\n]*$"
        with pytest.raises(ConfigError, match=message):
            data_fixture.run(*OVERRIDES, sources=("books",))
    assert not list((data_fixture.folder / "cache" / part).glob("*/manifest.json"))
    for link in [path for path in (data_fixture.folder / "cache").rglob(name) if path.is_symlink()]:
        link.unlink()
    data_fixture.run(*OVERRIDES, sources=("books",))
    data_fixture.run(*OVERRIDES, sources=("books",), cache="other", output="again")
    assert content_of(data_fixture.folder / "cache") == content_of(data_fixture.folder / "other")


@pytest.mark.parametrize(
    "array",
    [
        np.empty((0, 7), np.uint32),
        np.arange(12, dtype=np.uint32).reshape(3, 4),
        np.asfortranarray(np.arange(12, dtype=np.uint32).reshape(3, 4)),
        np.array([True, False]),
        np.arange(20)[::3],
    ],
)
def test_an_array_is_saved_as_by_numpy(tmp_path: Path, array: np.ndarray) -> None:
    clean._save(tmp_path / "ours.npy", array)
    np.save(tmp_path / "numpy.npy", np.ascontiguousarray(array))
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    loaded = np.load(tmp_path / "ours.npy", mmap_mode="r" if array.size else None)
    assert np.array_equal(loaded, array)
