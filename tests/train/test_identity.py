"""A base is known by its content: any changed byte is seen, and nothing that is not content."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from ropewalk.conf.artifacts import digests
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.model import ModelConfig
from ropewalk.train import base as bases
from ropewalk.train.base import locate
from ropewalk.train.gguf_base import convert as gguf
from ropewalk.train.identity import folder_identity

CONFIG = {
    "model_type": "llama",
    "auto_map": {"AutoModelForCausalLM": "code.Model"},
    "vocab_size": 8,
}
INDEX = {"weight_map": {"a": "one.safetensors", "b": "shards/two.safetensors"}}
FILES = {
    "config.json": json.dumps(CONFIG, indent=1).encode(),
    "generation_config.json": b'{"max_length": 20}',
    "model.safetensors.index.json": json.dumps(INDEX).encode(),
    "one.safetensors": os.urandom(3 << 20),
    "shards/two.safetensors": os.urandom(1 << 20),
    "code.py": b"WIDTH = 1",
}


def write(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def identity(folder: Path, cache: Path) -> str:
    """As a new command sees it."""
    return locate(ModelConfig(path=str(folder)), cache).identity


@pytest.mark.parametrize(
    ("name", "index"), [*((name, -1) for name in FILES), ("one.safetensors", 1 << 20)]
)
def test_one_changed_byte_of_equal_size_and_times_is_another_base(
    tmp_path: Path, name: str, index: int
) -> None:
    base, cache = write(tmp_path / "base"), tmp_path / "cache"
    before = identity(base, cache)
    file = base / name
    stat, content = file.stat(), bytearray(file.read_bytes())
    content[-3 if name == "config.json" else index] ^= 1  # of its last number, 8
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file.stat().st_mtime_ns == stat.st_mtime_ns
    assert identity(base, cache) != before


def test_times_copies_notes_and_the_order_of_keys_are_not_content(tmp_path: Path) -> None:
    base, cache = write(tmp_path / "base"), tmp_path / "cache"
    before = identity(base, cache)
    other = {
        "transformers_version": "4.1",
        "_name_or_path": "/home",
        **dict([*CONFIG.items()][::-1]),
    }
    for path in base.rglob("*"):
        os.utime(path, (7, 7))
    assert identity(base, cache) == before
    copy = Path(shutil.copytree(base, tmp_path / "copy"))
    (copy / "config.json").write_text(json.dumps(other))
    (copy / "README.md").write_text("a note")
    assert identity(copy, tmp_path / "another cache") == before


def test_shards_that_change_names_are_another_base(tmp_path: Path) -> None:
    """The index tells which file has which tensor."""
    base, cache = write(tmp_path / "base"), tmp_path / "cache"
    before = identity(base, cache)
    swapped = {**FILES, "one.safetensors": FILES["shards/two.safetensors"]}
    write(base, {**swapped, "shards/two.safetensors": FILES["one.safetensors"]})
    assert identity(base, cache) != before


def test_unchanged_weights_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, cache = write(tmp_path / "base"), tmp_path / "cache"
    before = identity(base, cache)
    monkeypatch.setattr(digests, "file_digest", None)
    assert identity(base, cache) == before


@pytest.mark.parametrize("text", ["{", "\ufeff{}", "[1]", ""])
def test_a_config_that_is_no_json_counts_byte_by_byte(tmp_path: Path, text: str) -> None:
    base, cache = write(tmp_path / "base"), tmp_path / "cache"
    seen = set[str]()
    for content in (text, text + " "):
        (base / "config.json").write_text(content, encoding="utf-8")
        seen.add(folder_identity(base, cache))
    assert len(seen) == 2


def test_a_shard_that_is_missing_is_refused_by_name(tmp_path: Path) -> None:
    base = write(tmp_path / "base")
    (base / "shards" / "two.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"model\.path is base; its shards/two\.safetensors"):
        identity(base, tmp_path / "cache")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Lets a branch of organisation/model point to a commit, in a cache without a network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))

    def point(branch: str, commit: str) -> None:
        folder = tmp_path / "models--organisation--model"
        write(folder, {f"snapshots/{commit}/config.json": b"{}", f"refs/{branch}": commit.encode()})

    return point


def test_a_branch_that_moved_is_another_base(
    hub: Callable[[str, str], None], tmp_path: Path
) -> None:
    def located(revision: str | None = None) -> bases.Base:
        return locate(ModelConfig(path="organisation/model", revision=revision), tmp_path)

    hub("main", "a" * 40)
    hub("v1", "a" * 40)
    before = located()
    assert before.revision == "a" * 40  # all later loads are of that commit
    assert located("v1").identity == located("a" * 40).identity == before.identity
    hub("main", "b" * 40)
    assert located().identity != before.identity == located("v1").identity


def test_a_hub_model_that_cannot_be_looked_up_is_refused(
    hub: Callable[[str, str], None], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="model.path is organisation/other; its config"):
        locate(ModelConfig(path="organisation/other"), tmp_path)


def test_two_gguf_files_of_one_name_and_size_are_two_bases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is converted, and a file that is only copied is not converted again."""

    def convert(file: Path, folder: Path) -> None:
        config = b'{"model_type": "llama"}'
        write(folder, {"config.json": config, "model.safetensors": file.read_bytes()})

    monkeypatch.setattr(gguf, "convert", convert)
    identities = []
    for folder, content in (("one", b"1"), ("two", b"2"), ("copy", b"1")):
        write(tmp_path / folder, {"base.gguf": content})
        os.utime(tmp_path / folder / "base.gguf", (7, 7))
        model = ModelConfig(path=str(tmp_path / folder), gguf_file="base.gguf")
        identities.append(locate(model, tmp_path / "cache").identity)
    assert identities[0] != identities[1] and identities[0] == identities[2]
    assert len(list((tmp_path / "cache" / "models").glob("base-*"))) == 2
