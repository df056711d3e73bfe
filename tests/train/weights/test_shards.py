"""The files that transformers reads, and their index; the oracle is what it wrote itself."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from base_folders import problems, save
from safetensors.torch import load_file, save_file

from ropewalk.train.weights.shards import INDEX, SINGLE, read_tensors

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("llama", tmp_path_factory.mktemp("sharded") / "base", max_shard_size="150KB")


def change_index(folder: Path, change: Callable[[dict[str, str]], object]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index["weight_map"])
    (folder / INDEX).write_text(json.dumps(index))


def add(folder: Path, file: str, name: str) -> None:
    tensors = load_file(str(folder / file))
    other = load_file(str(folder / (FIRST if file == SECOND else SECOND)))
    save_file(tensors | {name: other[name]}, str(folder / file))


def names_of(folder: Path, file: str) -> list[str]:
    weight_map = json.loads((folder / INDEX).read_text())["weight_map"]
    return [name for name, shard in weight_map.items() if shard == file]


def twice(folder: Path) -> str:
    name = names_of(folder, FIRST)[0]
    add(folder, SECOND, name)
    return f"{name} is in {FIRST} and in {SECOND}"


def unlisted_tensor(folder: Path) -> str:
    name = names_of(folder, FIRST)[0]
    change_index(folder, lambda weight_map: weight_map.pop(name))
    return f"does not list tensors of its files: {name} ({FIRST})"


def lost_tensor(folder: Path) -> str:
    change_index(folder, lambda weight_map: weight_map.update({"a.weight": FIRST}))
    return f"lists tensors that are not in their file: a.weight ({FIRST})"


def moved_tensor(folder: Path) -> str:
    name = names_of(folder, FIRST)[0]
    change_index(folder, lambda weight_map: weight_map.update({name: SECOND}))
    return f"lists tensors that are in another file: {name} ({FIRST}, not {SECOND})"


def missing_shard(folder: Path) -> str:
    (folder / SECOND).unlink()
    return f"{SECOND} cannot be read (No such file or directory)"


def unlisted_shard(folder: Path) -> str:
    shutil.copy(folder / FIRST, folder / "model-00003-of-00003.safetensors")
    return "does not list model-00003-of-00003.safetensors"


def single_beside(folder: Path) -> str:
    shutil.copy(folder / FIRST, folder / SINGLE)
    return "lie side by side"


def other_folder(folder: Path) -> str:
    shutil.copy(folder / FIRST, folder.parent / "stolen.safetensors")
    change_index(folder, lambda m: m.update(dict.fromkeys(m, "../stolen.safetensors")))
    return "names ../stolen.safetensors for "


def no_map(folder: Path) -> str:
    (folder / INDEX).write_text("[]")
    return f"{INDEX} has no weight_map"


def no_json(folder: Path) -> str:
    (folder / INDEX).write_text('{"weight_map": {')
    return f"{INDEX} is no JSON"


def pointer(folder: Path) -> str:
    (folder / INDEX).write_text("version https://git-lfs.github.com/spec/v1\n")
    return f"{INDEX} is a pointer of git-lfs"


def no_weights(folder: Path) -> str:
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    return f"neither {SINGLE} nor {INDEX}"


@pytest.mark.parametrize(
    "damage",
    [
        *(twice, unlisted_tensor, lost_tensor, moved_tensor, missing_shard, unlisted_shard),
        *(single_beside, other_folder, no_map, no_json, pointer, no_weights),
    ],
)
def test_damage_is_refused_by_name(
    tmp_path: Path, sharded: Path, damage: Callable[[Path], str]
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(sharded, folder)
    reason = damage(folder)
    lines = problems(folder)
    assert any(reason in line for line in lines), lines
    assert all(line.startswith("model.path is base; ") for line in lines)


def test_every_tensor_of_the_shards_is_read(sharded: Path) -> None:
    tensors, lines = read_tensors(sharded)
    written = {name for file in (FIRST, SECOND) for name in load_file(str(sharded / file))}
    assert ({*tensors}, lines) == (written, [])


def test_a_folder_of_links_passes(tmp_path: Path, sharded: Path) -> None:
    """As the Hub's cache has it: snapshots/REVISION/FILE -> blobs/HASH."""
    folder = tmp_path / "snapshots" / "abc"
    folder.mkdir(parents=True)
    for number, file in enumerate(sharded.iterdir()):
        blob = tmp_path / "blobs" / str(number)
        blob.parent.mkdir(exist_ok=True)
        shutil.copy(file, blob)
        (folder / file.name).symlink_to(Path("../../blobs") / str(number))
    assert problems(folder) == []
