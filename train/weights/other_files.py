"""What lies beside the weights of a base: an adapter, pointers of git-lfs."""

from collections.abc import Iterator
from pathlib import Path

from ropewalk.train.weights.headers import LFS_POINTER

ADAPTER = "adapter_config.json"


def other_file_problems(folder: Path, subject: str) -> list[str]:
    """Lines about files that would change or stop a training. `subject`: begins each line."""
    problems = [*_pointer_problems(folder)]
    if (folder / ADAPTER).is_file():
        problems.append(
            f"{ADAPTER} lies beside its weights, and transformers would add that adapter to them "
            "unasked; merge it into the weights (merge_and_unload of peft), or move the adapter's "
            "files elsewhere to train the base alone"
        )
    return [f"{subject}; {problem}" for problem in problems]


def _pointer_problems(folder: Path) -> Iterator[str]:
    for file in sorted(folder.iterdir()):
        if file.suffix != ".safetensors" and file.is_file() and _is_pointer(file):
            yield f"{file.name} is a pointer of git-lfs; run git lfs pull in the model's folder"


def _is_pointer(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(LFS_POINTER)) == LFS_POINTER
