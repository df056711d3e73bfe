"""llama.cpp has the logits of transformers for an export (slow: `make test-all`)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from servers import (
    LENGTHS,
    ODD,
    RMS,
    ROPES,
    TRICKY,
    LlamaCpp,
    assert_same,
    ids_of,
    needs_llama_cpp,
    needs_smollm2,
    rescale_and_export,
    rms_difference,
    transformers_logits,
)
from transformers import AutoTokenizer

from ropewalk.conf.rope_methods import (
    PIConfig,
    RopeConfig,
    YarnConfig,
)
from ropewalk.train.base import Base

pytestmark = pytest.mark.slow


@needs_llama_cpp
@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
def test_llama_cpp_has_the_logits_of_transformers(
    rope: RopeConfig, demo: Callable[[RopeConfig], Path]
) -> None:
    export = demo(rope)
    ids = ids_of(export / "hf", 2000)
    ours = transformers_logits(export / "hf", ids)[[length - 1 for length in LENGTHS]]
    theirs = LlamaCpp(export / "model-f32.gguf", 2048).log_probs(ids, LENGTHS, 2048)
    assert_same(theirs, ours, f"llama.cpp, demo, {rope.method}")


@needs_llama_cpp
@pytest.mark.parametrize(
    "wrong", [RopeConfig(), YarnConfig(factor=8.0)], ids=["no scaling", "default yarn"]
)
def test_other_rope_keys_for_the_same_weights_give_other_logits(
    wrong: RopeConfig, demo: Callable[[RopeConfig], Path]
) -> None:
    """So the comparison can fail: without the plan's keys it is off even inside the window."""
    export, lengths = demo(ODD), (16, 200, 255)
    ids = ids_of(export / "hf", 256)
    ours = transformers_logits(export / "hf", ids)[[length - 1 for length in lengths]]
    theirs = LlamaCpp(demo(wrong) / "model-f32.gguf", 256).log_probs(ids, lengths, 2048)
    assert rms_difference(theirs, ours)[1:].min() > 20 * RMS


@needs_llama_cpp
def test_scaling_flags_on_an_unscaled_file_give_the_same_logits(
    demo: Callable[[RopeConfig], Path],
) -> None:
    """The flags of SERVING.md, with betas that are not the defaults."""
    import xllamacpp as x

    rope = YarnConfig(factor=8.0, beta_fast=24.0, beta_slow=2.5)
    export = demo(rope)
    expected = "--rope-scale 8 --yarn-orig-ctx 256 --yarn-beta-fast 24 --yarn-beta-slow 2.5"
    assert expected in (export / "SERVING.md").read_text()
    ids = ids_of(export / "hf", 256)
    flags = {
        "rope_scaling_type": x.llama_rope_scaling_type.LLAMA_ROPE_SCALING_TYPE_YARN,
        "rope_freq_scale": 1 / 8,
        "yarn_orig_ctx": 256,
        "yarn_beta_fast": 24.0,
        "yarn_beta_slow": 2.5,
    }
    lengths = (16, 200, 255)
    server = LlamaCpp(demo(RopeConfig()) / "model-f32.gguf", 256, **flags)
    ours = transformers_logits(export / "hf", ids)[[length - 1 for length in lengths]]
    assert_same(server.log_probs(ids, lengths, 2048), ours, "llama.cpp, flags")


@needs_llama_cpp
@pytest.mark.parametrize("text", TRICKY)
def test_llama_cpp_tokenizes_text_as_hugging_face(
    text: str, demo: Callable[[RopeConfig], Path]
) -> None:
    """Text and the ids of the Hugging Face tokenizer lead to the same distribution."""
    export = demo(ROPES["yarn"])
    ids = AutoTokenizer.from_pretrained(export / "hf")(text).input_ids
    server = LlamaCpp(export / "model-f32.gguf", 512)
    by_ids = server.last(ids, 2048)
    np.testing.assert_allclose(server.last(text, 2048), by_ids, atol=1e-5)
    assert np.abs(server.last(ids[:-1], 2048) - by_ids).max() > 0.1


@needs_llama_cpp
@pytest.mark.parametrize(
    ("kind", "rope"),
    [
        ("mistral", ODD),
        ("qwen2", YarnConfig(factor=8.0)),
        ("qwen2", YarnConfig(factor=8.0, attention_factor=1.12)),
        ("qwen3", YarnConfig(factor=8.0)),
        ("qwen3", PIConfig(factor=8.0)),
    ],
)
def test_llama_cpp_has_the_logits_of_other_architectures(
    kind: str, rope: RopeConfig, tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    changes = {"sliding_window": None} if kind == "mistral" else {}
    exported = export(tiny(kind, **changes), rope)
    ids = torch.randint(2, 300, (2000,), generator=torch.Generator().manual_seed(0)).tolist()
    ours = transformers_logits(exported.folder / "hf", ids)[[length - 1 for length in LENGTHS]]
    server = LlamaCpp(exported.folder / exported.metadata["gguf"], 2048)
    assert_same(server.log_probs(ids, LENGTHS, 300), ours, f"llama.cpp, {kind}")


@needs_llama_cpp
@needs_smollm2
@pytest.mark.parametrize("rope", [RopeConfig(), YarnConfig(factor=2.0)], ids=["as is", "yarn x2"])
def test_llama_cpp_has_the_logits_of_smollm2(
    rope: RopeConfig, smollm2: Base, tmp_path: Path
) -> None:
    """A real model, 8,192 -> 16,384 tokens, on both sides of its window if it is rescaled."""
    export = rescale_and_export(smollm2, rope, tmp_path)
    lengths = [16, 300, 4000, *range(8190, 8330)]
    if rope.method == "none":
        lengths = [*range(1, 1000, 10)]
    ids = ids_of(export / "hf", max(lengths))
    ours = transformers_logits(export / "hf", ids, [length - 1 for length in lengths])
    server = LlamaCpp(export / "model-f32.gguf", max(lengths) + 64)
    vocab_size = ours.shape[1]
    text_ids = AutoTokenizer.from_pretrained(export / "hf")(TRICKY[0]).input_ids
    by_ids = server.last(text_ids, vocab_size)
    np.testing.assert_allclose(server.last(TRICKY[0], vocab_size), by_ids, atol=1e-4)
    theirs = server.log_probs(ids, lengths, vocab_size, grow=True)
    assert_same(theirs, ours, f"llama.cpp, SmolLM2, {rope.method}")
