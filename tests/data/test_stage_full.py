"""A disk that is full in the midst of the stage: a line, nothing half finished, and the next run ends as if nothing had been."""

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

WORDS = (*SYNTHETIC, "data.contamination.action=report")
FILES = [  # part of the cache, what of it does not fit
    ("tokenizers", "tokenizer.json"),
    ("tokenizers", "tokenizer_config.json"),
    ("tokens", "tokens.bin"),
    ("tokens", "documents.arrow"),
    ("duplicates", "documents.npy"),
    ("contamination", "documents.npy"),
    ("plans", "plan.arrow"),
    ("plans", "manifest.json.tmp"),
]


def fill(monkeypatch: pytest.MonkeyPatch, part: str, name: str) -> None:
    """Where a stage writes in this part, the file is the kernel's full device."""
    real: Callable[..., Path] = manifest.workspace

    def workspace(output: Path, *args: Any, **kwargs: Any) -> Path:
        found = real(output, *args, **kwargs)
        if part in output.parts:
            (found / name).symlink_to("/dev/full")
        return found

    for module in (manifest, text_store):
        monkeypatch.setattr(module, "workspace", workspace)


@pytest.mark.parametrize(("part", "name"), FILES)
def test_a_full_disk_is_a_line_wherever_it_is_met(
    data_fixture: DataFixture, monkeypatch: pytest.MonkeyPatch, part: str, name: str
) -> None:
    with monkeypatch.context() as patched:
        fill(patched, part, name)
        with pytest.raises(
            ConfigError,
            match=rf"^cache_dir is {data_fixture.folder / 'cache'}; its disk .* is full; [^\n]*$",
        ):
            data_fixture.run(*WORDS, sources=("books",))
    assert not list((data_fixture.folder / "cache" / part).glob("*/manifest.json"))
    for link in [path for path in (data_fixture.folder / "cache").rglob(name) if path.is_symlink()]:
        link.unlink()
    data_fixture.run(*WORDS, sources=("books",))
    data_fixture.run(*WORDS, sources=("books",), cache="other", output="again")
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
def test_an_array_is_written_as_numpy_reads_it(tmp_path: Path, array: np.ndarray) -> None:
    clean._save(tmp_path / "one.npy", array)
    np.save(tmp_path / "two.npy", np.ascontiguousarray(array))
    assert (tmp_path / "one.npy").read_bytes() == (tmp_path / "two.npy").read_bytes()
    assert np.array_equal(
        np.load(tmp_path / "one.npy", mmap_mode="r" if array.size else None), array
    )
