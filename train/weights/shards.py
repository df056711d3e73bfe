"""The files that transformers reads the weights from, and the index against its shards."""

import json
import re
from pathlib import Path

from ropewalk.train.weights.headers import (
    DamagedFile,
    StoredTensor,
    not_weights,
    read_header,
    unique_keys,
)

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
RANK_SHARD = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
"""transformers reads these instead of all others: the parts of ranks, by torch's checkpoints."""

Tensors = dict[str, StoredTensor]


def read_tensors(folder: Path) -> tuple[Tensors, list[str]]:
    """Every tensor of the weights by name, and what is wrong with the files, without a prefix."""
    single, index = folder / SINGLE, folder / INDEX
    if parts := sorted(p.name for p in folder.iterdir() if RANK_SHARD.fullmatch(p.name)):
        return {}, [
            f"it has the parts of ranks ({shown(parts)}), which transformers reads instead of "
            "other weights; save the model with save_pretrained in one process"
        ]
    if not index.is_file():
        if not (single.exists() or single.is_symlink()):
            return {}, [
                f"it has neither {SINGLE} nor {INDEX}; transformers reads no other names; "
                "save the model with save_pretrained"
            ]
        return _read_files([single])
    try:
        weight_map = _weight_map(index)
    except DamagedFile as error:
        return {}, [f"{INDEX} {error}"]
    files = sorted(set(weight_map.values()))
    if single.is_file() and files != [SINGLE]:
        return {}, [
            f"{SINGLE} and {INDEX} with {len(files)} other files lie side by side; transformers "
            "reads the first only; remove the ones that are not the model"
        ]
    tensors, problems = _read_files([folder / file for file in files])
    if not problems:
        problems = _index_problems(weight_map, tensors)
    return tensors, problems + _unlisted_shards(folder, files)


def _weight_map(index: Path) -> dict[str, str]:
    """File of each tensor. Raises: DamagedFile."""
    content = index.read_bytes()
    if reason := not_weights(content):
        raise DamagedFile(reason)
    try:
        values = json.loads(content, object_pairs_hook=unique_keys)
    except ValueError as error:
        raise DamagedFile(f"is no JSON ({error}); download it again") from error
    weight_map = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise DamagedFile("has no weight_map with the file of each tensor; download it again")
    for name, file in weight_map.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise DamagedFile(
                f"names {file} for {name}; it must be a file of the same folder; correct it"
            )
    return weight_map


def _read_files(files: list[Path]) -> tuple[Tensors, list[str]]:
    tensors: Tensors = {}
    problems = []
    for file in files:
        try:
            header = read_header(file)
        except DamagedFile as error:
            problems.append(f"{file.name} {error}")
            continue
        if twice := sorted(tensors.keys() & header.keys()):
            problems.append(
                f"{shown(twice)} is in {tensors[twice[0]].file.name} and in {file.name}; each "
                "tensor must be in one file; download the model again"
            )
        tensors |= header
    return tensors, problems


def _index_problems(weight_map: dict[str, str], tensors: Tensors) -> list[str]:
    lost = [f"{name} ({file})" for name, file in weight_map.items() if name not in tensors]
    unlisted = [f"{name} ({t.file.name})" for name, t in tensors.items() if name not in weight_map]
    moved = [
        f"{name} ({tensors[name].file.name}, not {file})"
        for name, file in weight_map.items()
        if name in tensors and tensors[name].file.name != file
    ]
    rules = {
        "lists tensors that are not in their file": lost,
        "does not list tensors of its files": unlisted,
        "lists tensors that are in another file": moved,
    }
    return [
        f"{INDEX} {rule}: {shown(names)}; index and shards must be of one save; "
        "download the model again"
        for rule, names in rules.items()
        if names
    ]


def _unlisted_shards(folder: Path, files: list[str]) -> list[str]:
    names = sorted(p.name for p in folder.iterdir() if SHARD.fullmatch(p.name))
    if extra := [name for name in names if name not in files]:
        return [
            f"{INDEX} does not list {shown(extra)}; index and shards must be of one save; "
            "remove the other shards, or download the model again"
        ]
    return []


def shown(names: list[str], most: int = 3) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
