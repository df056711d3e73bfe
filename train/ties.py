"""Weights that a config ties and the files contradict: two matrices that differ.

transformers then leaves them untied, except at ZeRO stage 3, where it ties them, and it saves a
config that still ties them. Here the config is untied before the model is built.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

from ropewalk.train.base import Base

ROWS = 4096  # compared at a time


def untie_contradicted(config: PreTrainedConfig, base: Base) -> str | None:
    """Untie the config's weights, in place, where the base's files hold two matrices that differ.

    Returns a line about it, or None.
    """
    if not config.tie_word_embeddings:
        return None
    for name, tied_to in _tied_weights(config, base).items():
        files = stored_in(base, (name, tied_to))
        if len(files) == 2 and differ((files[name], name), (files[tied_to], tied_to)):
            config.tie_word_embeddings = False
            return (
                f"{base.name}: its config ties {name} to {tied_to}, and its files hold two "
                "matrices that differ; both are used, and written untied"
            )
    return None


def _tied_weights(config: PreTrainedConfig, base: Base) -> dict[str, str]:
    """Names of weights, and of those that they are tied to, in the architecture's own words."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=base.trust_remote_code)
    tied: dict[str, str] = model.all_tied_weights_keys
    return tied


def stored_in(base: Base, names: tuple[str, ...]) -> dict[str, Path]:
    """The file of each tensor that the base's safetensors files hold; others are left out."""
    files: dict[str, Path] = {}
    for file in weight_files(base):
        with safe_open(str(file), framework="pt") as opened:
            files |= dict.fromkeys(set(names) & set(opened.keys()), file)
    return files


def weight_files(base: Base) -> Iterator[Path]:
    """The safetensors files that transformers loads, of a folder or of a hub name."""
    kwargs = {"revision": base.revision, "_raise_exceptions_for_missing_entries": False}
    if file := cached_file(str(base.path), SAFE_WEIGHTS_NAME, **kwargs):
        yield Path(file)
    elif index := cached_file(str(base.path), SAFE_WEIGHTS_INDEX_NAME, **kwargs):
        shards, _ = get_checkpoint_shard_files(str(base.path), index, revision=base.revision)
        yield from map(Path, shards)


def differ(first: tuple[Path, str], second: tuple[Path, str]) -> bool:
    """Whether two tensors (file, name) differ; compared block by block, in float32."""
    with safe_open(str(first[0]), "pt") as a, safe_open(str(second[0]), "pt") as b:
        x, y = a.get_slice(first[1]), b.get_slice(second[1])
        if x.get_shape() != y.get_shape():
            return False  # not two forms of one matrix: transformers refuses it by shape
        rows = x.get_shape()[0]
        return any(
            not torch.equal(x[i : i + ROWS].float(), y[i : i + ROWS].float())
            for i in range(0, rows, ROWS)
        )
