"""A config that ties two matrices, and files that hold two that differ: the files are right."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranks
import ties_ranks
import torch
from models import tiny_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ropewalk.conf.rope_methods import YarnConfig
from ropewalk.train.base import Base, base_config
from ropewalk.train.export import stage
from ropewalk.train.rope import plan as rope_plan
from ropewalk.train.ties import differ, untie_contradicted

HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"


@pytest.fixture
def contradicted(tmp_path: Path, tokenizer: Any) -> Path:
    """A base whose config ties the head to the embeddings, beside a head of its own."""
    folder = tmp_path / "base"
    tiny_model(tie_word_embeddings=False, vocab_size=300).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    return folder


def logits(folder: Path, **kwargs: Any) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **kwargs)
    with torch.no_grad():
        return model(input_ids=torch.arange(96)[None] * 3).logits


@pytest.mark.parametrize("zero_stage", [0, 3])
def test_what_is_saved_has_both_matrices_and_says_so(
    contradicted: Path, tmp_path: Path, zero_stage: int
) -> None:
    """Held against transformers, which is given the untied config and the plan's parameters."""
    base = Base(str(contradicted))
    plan = rope_plan.make(YarnConfig(factor=2.0), base_config(base), "base")
    saved = tmp_path / "run" / "train" / "model"
    ranks.run(1, ties_ranks.build_and_save, str(contradicted), plan, zero_stage, str(saved))
    untied = {"tie_word_embeddings": False, "max_position_embeddings": 128}
    expected = logits(contradicted, rope_parameters=plan.rope_parameters, **untied)
    assert torch.equal(logits(saved), expected)
    assert json.loads((saved / "config.json").read_text())["tie_word_embeddings"] is False


def test_the_gguf_file_has_the_head(contradicted: Path, tmp_path: Path) -> None:
    """Read by the gguf package: `output.weight` is llama.cpp's name of the head."""
    gguf = pytest.importorskip("gguf")
    base = Base(str(contradicted))
    plan = rope_plan.make(YarnConfig(factor=2.0), base_config(base), "base")
    saved = tmp_path / "run" / "train" / "model"
    ranks.run(1, ties_ranks.build_and_save, str(contradicted), plan, 0, str(saved))
    for file in contradicted.glob("tokenizer*"):
        (saved / file.name).write_bytes(file.read_bytes())
    stage.export_model(saved, plan, tmp_path / "export", "tiny", "f32", None)
    reader = gguf.GGUFReader(tmp_path / "export" / "model-f32.gguf")
    written = {tensor.name: tensor.data for tensor in reader.tensors}
    stored = load_file(contradicted / "model.safetensors")
    assert np.array_equal(written["output.weight"], stored[HEAD].numpy())
    assert np.array_equal(written["token_embd.weight"], stored[EMBEDDINGS].numpy())


@pytest.mark.parametrize("stored", ["embeddings alone", "head alone", "both, equal"])
def test_a_tie_that_the_files_follow_stays(contradicted: Path, stored: str) -> None:
    tensors = load_file(contradicted / "model.safetensors")
    matrix = tensors.pop(HEAD) if stored == "embeddings alone" else tensors.pop(EMBEDDINGS)
    if stored == "both, equal":
        tensors |= {HEAD: matrix, EMBEDDINGS: matrix.clone()}
    save_file(tensors, contradicted / "model.safetensors", metadata={"format": "pt"})
    config = base_config(Base(str(contradicted)))
    assert untie_contradicted(config, Base(str(contradicted))) is None
    assert config.tie_word_embeddings


def test_every_row_is_compared(tmp_path: Path) -> None:
    """One small value of the last row of 9,000 decides."""
    a = torch.zeros(9000, 4)
    b = a.clone()
    b[-1, -1] = 1e-30
    save_file({"a": a, "b": b, "c": a.clone()}, tmp_path / "x.safetensors")
    file = tmp_path / "x.safetensors"
    assert differ((file, "a"), (file, "b"))
    assert not differ((file, "a"), (file, "c"))
