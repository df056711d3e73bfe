"""One rank reads a base's files; the others have none and hold the same model, and no second copy.

The oracles: one process with all files, transformers' load in fp32 and torch's cast, and sizes.
"""

import shutil
from pathlib import Path
from typing import Any

import base_folders
import one_reader_ranks as programs
import pytest
import ranks
import torch
from base_folders import ARCHITECTURES, copy_with, load, stored, with_nan
from models import tiny_model

from ropewalk.train.base import Base
from ropewalk.train.model import build
from ropewalk.train.weights.loading import load_pretrained

KINDS = ["llama", "gemma 3", "mixtral", "deepseek v3", "gpt-oss"]
"""Untied; tied, with a scale as a buffer; stacked experts; a stored buffer; sinks."""


def without_weights(folder: Path) -> None:
    """Beside `folder`, one of its config only."""
    (folder.parent / "config only").mkdir()
    shutil.copy(folder / "config.json", folder.parent / "config only")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ranks_without_files_hold_the_model_of_the_one_that_reads(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    parents = [tmp_path / kind for kind in KINDS]
    for kind, parent in zip(KINDS, parents, strict=True):
        without_weights(base_folders.save(kind, parent / "with weights"))
    results = ranks.run(3, programs.built, parents, dtype)
    for number, parent in enumerate(parents):
        base = Base(str(parent / "with weights"))
        alone = build.build(base, programs.plan_of(base), dtype=dtype)
        assert all(rank[number] == (programs.tensors(alone), False) for rank in results), parent


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_load_in_bf16_is_the_load_in_fp32_cast(tmp_path: Path, architecture: str) -> None:
    """So trainings are those of weights that were read in fp32 and cast by the engine."""
    folder, _ = stored(architecture, tmp_path)
    model: Any = load_pretrained(str(folder), "the base", dtype=torch.bfloat16)
    expected = load(folder)[0]
    cast = dict(expected.named_parameters())
    assert {name: p.bfloat16().tolist() for name, p in model.named_parameters()} == {
        name: p.bfloat16().tolist() for name, p in cast.items()
    }
    buffers = dict(expected.named_buffers())
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer.float(), buffers[name].to(buffer.dtype).float()), name


def test_what_the_reader_is_refused_ends_all_ranks_with_one_message(tmp_path: Path) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    source, weights = stored("llama", tmp_path)
    without_weights(copy_with(source, tmp_path / "with weights", with_nan(weights, name)))
    messages = ranks.run(2, programs.refusal, tmp_path)
    assert messages[0] == messages[1]
    assert f"{name} has values that are nan or inf" in messages[0]


def test_another_error_of_the_reader_ends_all_ranks() -> None:
    messages = ranks.run(2, programs.error_of_the_reader)
    assert messages == ["KeyError: 'of the reader'", "RopewalkError: 'of the reader'"]


@pytest.mark.parametrize(
    ("stored_dtype", "dtype"),
    [(torch.bfloat16, torch.bfloat16), (torch.float32, torch.bfloat16)],
)
def test_each_rank_holds_one_copy_in_the_dtype_that_it_computes_in(
    tmp_path: Path, stored_dtype: torch.dtype, dtype: torch.dtype
) -> None:
    """On a CPU that copy is the model. Files of the same dtype are mapped, and take no memory."""
    shape: dict[str, Any] = {"hidden_size": 512, "intermediate_size": 2048, "vocab_size": 8192}
    model = tiny_model(**shape, num_hidden_layers=6).to(stored_dtype)
    model.save_pretrained(tmp_path / "with weights")
    without_weights(tmp_path / "with weights")
    sizes = [p.numel() * dtype.itemsize / 2**20 for p in model.parameters()]
    highest = ranks.run(2, programs.growth, tmp_path, dtype)
    proofs = 12  # what else the build takes: modules, their proofs, gloo
    assert highest[1] < sum(sizes) + proofs < 1.5 * sum(sizes), (highest, sum(sizes))
    assert highest[0] < (0 if stored_dtype == dtype else sum(sizes)) + proofs, highest
