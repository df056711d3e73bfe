"""GGUF files read back by the gguf package: keys, divisors, the order of rows, the tokenizer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import (
    ABFConfig,
    DynamicConfig,
    LongRopeConfig,
    NTKByPartsConfig,
    PIConfig,
    RopeConfig,
    YarnConfig,
)
from ropewalk.train.export import gguf_file, gguf_rope, gguf_tokens
from ropewalk.train.export.gguf_rope import GgufUnsupported

gguf = pytest.importorskip("gguf", reason="gguf is not installed")
ODD = YarnConfig(factor=8.0, beta_fast=24.0, beta_slow=2.5, attention_factor=1.12, truncate=False)
YARN_FACTOR = 0.1 * np.log(8) + 1


class GgufFile:
    """A file read by gguf.GGUFReader."""

    def __init__(self, path: Path) -> None:
        self.reader = gguf.GGUFReader(path)
        self.tensors = {t.name: t for t in self.reader.tensors}

    def __getitem__(self, key: str) -> Any:
        return self.reader.fields[key].contents()

    def __contains__(self, key: str) -> bool:
        return key in self.reader.fields

    def values(self, name: str) -> np.ndarray:
        tensor = self.tensors[name]
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type)


def read(exported: Any) -> GgufFile:
    return GgufFile(exported.folder / exported.metadata["gguf"])


def test_default_yarn_is_written_as_scaling_keys(
    tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    file = read(export(tiny("llama"), YarnConfig(factor=8.0)))
    assert file["general.architecture"] == "llama" and file["llama.rope.scaling.type"] == "yarn"
    assert file["llama.rope.scaling.factor"] == 8
    assert file["llama.rope.scaling.original_context_length"] == 256
    assert file["llama.context_length"] == 2048 and file["llama.rope.freq_base"] == 10_000
    assert file["llama.rope.dimension_count"] == 16 and file["llama.attention.head_count_kv"] == 2
    assert "llama.rope.scaling.attn_factor" not in file and "rope_freqs.weight" not in file.tensors


@pytest.mark.parametrize(
    ("rope", "factor"),
    [
        (ODD, 1.12),
        (
            LongRopeConfig(factor=8.0, long_factor=[1.0 + i for i in range(8)]),
            np.sqrt(1 + np.log(8) / np.log(256)),
        ),
        (NTKByPartsConfig(factor=8.0, beta_fast=8.0), 1.0),
    ],
    ids=["odd yarn", "longrope", "ntk_by_parts"],
)
def test_other_tables_are_written_as_divisors_and_a_multiplier(
    rope: RopeConfig, factor: float, tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    exported = export(tiny("llama"), rope)
    file = read(exported)
    assert file["llama.rope.scaling.type"] == "none" and "llama.rope.scaling.factor" not in file
    divisors = file.values("rope_freqs.weight")
    assert divisors.dtype == np.float32 and divisors.shape == (8,)
    unscaled = 10_000.0 ** (-2 * np.arange(8) / 16)
    np.testing.assert_allclose(unscaled / divisors, exported.plan.inv_freq, rtol=1e-6)
    if factor == 1:
        assert "llama.rope.scaling.attn_factor" not in file
    else:
        assert file["llama.rope.scaling.attn_factor"] == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_linear_scaling_is_written_as_scaling_keys(
    kind: str, tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    file = read(export(tiny(kind), PIConfig(factor=8.0)))
    assert file[f"{kind}.rope.scaling.type"] == "linear"
    assert file[f"{kind}.rope.scaling.factor"] == 8
    assert "rope_freqs.weight" not in file.tensors


def test_a_raised_theta_and_an_attention_factor_have_keys(
    tiny: Callable[..., Any], planned: Callable[..., Any]
) -> None:
    abf = planned(tiny("qwen3"), ABFConfig(factor=8.0, rope_theta=5e5))
    keys = gguf_rope.rope_keys(abf, "qwen3")
    assert (keys.scaling, keys.freq_base, keys.attn_factor) == ("none", 5e5, 1.0)
    yarn = planned(tiny("qwen2"), YarnConfig(factor=8.0, attention_factor=1.12))
    keys = gguf_rope.rope_keys(yarn, "qwen2")
    assert keys.scaling == "yarn" and keys.attn_factor == pytest.approx(1.12 / YARN_FACTOR)


@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_a_table_that_no_key_expresses_is_refused_by_name(
    kind: str, tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    exported = export(tiny(kind), ODD)
    assert exported.metadata["gguf"] is None and not list(exported.folder.glob("*.gguf"))
    reason = f"no keys for this table in the architecture {kind}"
    assert reason in exported.serving["gguf"]["missing"]
    assert "no GGUF file was written, because" in exported.page


@pytest.mark.parametrize(
    "rope",
    [
        DynamicConfig(factor=8.0),
        LongRopeConfig(factor=8.0, long_factor=[2.0] * 8, short_factor=[1.0] * 8),
    ],
    ids=["dynamic", "longrope"],
)
def test_a_table_that_switches_by_length_is_refused(
    rope: RopeConfig, tiny: Callable[..., Any], planned: Callable[..., Any]
) -> None:
    with pytest.raises(
        GgufUnsupported, match=f"rope={rope.method} has another table for short texts"
    ):
        gguf_rope.rope_keys(planned(tiny("llama"), rope), "llama")


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("olmo2", {}, "architecture olmo2 is not one of llama, mistral, qwen2, qwen3"),
        (
            "gemma3_text",
            {"sliding_window": 64, "num_hidden_layers": 6},
            "architecture gemma3_text is not one of",
        ),
        ("llama", {"hidden_act": "gelu"}, "hidden_act is gelu"),
    ],
)
def test_an_unsupported_model_is_exported_without_a_gguf_file(
    kind: str,
    changes: dict[str, Any],
    reason: str,
    tiny: Callable[..., Any],
    export: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    exported = export(tiny(kind, **changes), YarnConfig(factor=8.0))
    assert exported.metadata["gguf"] is None and reason in exported.page
    assert f"export warning: no GGUF file: its {reason}" in capsys.readouterr().out


def test_mistral_is_written_as_llama_unless_its_window_slides(
    tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    file = read(export(tiny("mistral", sliding_window=None), YarnConfig(factor=8.0)))
    assert file["general.architecture"] == "llama"
    sliding = tiny("qwen2", use_sliding_window=True, sliding_window=64, max_window_layers=1)
    with pytest.raises(GgufUnsupported, match="qwen2 has sliding-window layers"):
        gguf_file.architecture_of(sliding, None)  # type: ignore[arg-type]


def ggml_rotated(x: np.ndarray, angles: np.ndarray, neighbours: bool) -> np.ndarray:
    """ggml's two rotations, by its documentation: pairs (2i, 2i+1), or (i, i + d/2)."""
    half = len(x) // 2
    pairs = [(2 * i, 2 * i + 1) if neighbours else (i, i + half) for i in range(half)]
    turned = np.empty_like(x)
    for (a, b), angle in zip(pairs, angles, strict=True):
        turned[a] = x[a] * np.cos(angle) - x[b] * np.sin(angle)
        turned[b] = x[a] * np.sin(angle) + x[b] * np.cos(angle)
    return turned


@pytest.mark.parametrize(
    ("kind", "neighbours"), [("llama", True), ("qwen2", False), ("qwen3", False)]
)
def test_scores_after_ggmls_rotation_equal_those_of_transformers(
    kind: str, neighbours: bool, tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    """The rows of q and k have the order that ggml's rotation for the architecture needs."""
    exported = export(tiny(kind), YarnConfig(factor=8.0))
    file, weights = read(exported), load_file(exported.folder / "hf" / "model.safetensors")
    x, y = np.random.default_rng(0).normal(size=(2, 64))
    angles = np.array(exported.plan.inv_freq)
    for layer in (0, 1):
        expected, actual = [], []
        for part, word, vector, position in (("q", "attn_q", x, 700), ("k", "attn_k", y, 20)):
            hf = weights[f"model.layers.{layer}.self_attn.{part}_proj.weight"].numpy() @ vector
            written = file.values(f"blk.{layer}.{word}.weight") @ vector
            expected.append(ggml_rotated(hf[16:32], position * angles, neighbours=False))
            actual.append(ggml_rotated(written[16:32], position * angles, neighbours))
        assert actual[0] @ actual[1] == pytest.approx(expected[0] @ expected[1], rel=1e-4)


def test_every_weight_is_written_unchanged_apart_from_q_and_k(
    tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    exported = export(tiny("qwen3", tie_word_embeddings=False), YarnConfig(factor=8.0))
    file, weights = read(exported), load_file(exported.folder / "hf" / "model.safetensors")
    assert len(file.tensors) == len(weights)
    assert file.tensors.keys() >= {"output.weight", "blk.1.attn_q_norm.weight", "token_embd.weight"}
    np.testing.assert_array_equal(file.values("output.weight"), weights["lm_head.weight"])
    np.testing.assert_array_equal(
        file.values("blk.1.ffn_down.weight"), weights["model.layers.1.mlp.down_proj.weight"]
    )
    np.testing.assert_array_equal(
        file.values("blk.0.attn_q.weight"), weights["model.layers.0.self_attn.q_proj.weight"]
    )


def test_a_tied_head_is_not_written_twice(
    tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    file = read(export(tiny("llama", tie_word_embeddings=True), YarnConfig(factor=8.0)))
    assert "output.weight" not in file.tensors


@pytest.mark.parametrize(
    ("dtype", "kind", "step"), [("f16", "F16", 2.0**-11), ("bf16", "BF16", 2.0**-8)]
)
def test_half_precision_rounds_matrices_and_keeps_norms(
    dtype: str, kind: str, step: float, tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    exported = export(tiny("llama"), ODD, gguf=dtype)
    file, weights = read(exported), load_file(exported.folder / "hf" / "model.safetensors")
    assert exported.metadata["gguf"] == f"model-{dtype}.gguf"
    assert file.tensors["blk.0.ffn_up.weight"].tensor_type.name == kind
    for name in ("blk.0.attn_norm.weight", "rope_freqs.weight"):
        assert file.tensors[name].tensor_type.name == "F32"
    exact = weights["model.layers.0.mlp.up_proj.weight"].numpy()
    rounded = file.values("blk.0.ffn_up.weight")
    assert not np.array_equal(rounded, exact)
    # f16 has steps of 2^-24 near zero
    np.testing.assert_allclose(rounded, exact, rtol=step, atol=2.0**-25)


def test_weights_in_bf16_are_written_exactly(
    tiny: Callable[..., Any], export: Callable[..., Any]
) -> None:
    exported = export(tiny("llama"), YarnConfig(factor=8.0), gguf="bf16", dtype="bfloat16")
    weights = load_file(exported.folder / "hf" / "model.safetensors")
    assert weights["model.norm.weight"].dtype == torch.bfloat16
    np.testing.assert_array_equal(
        read(exported).values("blk.0.ffn_up.weight"),
        weights["model.layers.0.mlp.up_proj.weight"].float().numpy(),
    )


def test_a_weight_too_large_for_f16_is_refused(
    tiny: Callable[..., Any], export: Callable[..., Any], trained: Any
) -> None:
    from ropewalk.train.export import stage

    model, plan = trained(tiny("llama"), YarnConfig(factor=8.0))
    weights = load_file(model / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e5
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    output = model.parents[1] / "export"
    output.mkdir()
    with pytest.raises(
        ConfigError,
        match=r"export\.gguf is f16; blk\.0\.ffn_up\.weight has weights .* set export\.gguf=bf16",
    ):
        stage.export_model(model, plan, output, "tiny", "f16", None)


def test_the_tokenizer_is_written_token_by_token(
    tiny: Callable[..., Any], export: Callable[..., Any], tokenizer: Any
) -> None:
    file = read(export(tiny("llama", vocab_size=310), YarnConfig(factor=8.0)))
    assert file["tokenizer.ggml.model"] == "gpt2" and file["tokenizer.ggml.pre"] == "smollm"
    assert file["llama.vocab_size"] == 310
    vocabulary = file["tokenizer.ggml.tokens"]
    assert vocabulary[:300] == tokenizer.convert_ids_to_tokens(list(range(300)))
    assert vocabulary[300:] == [f"[PAD{i}]" for i in range(300, 310)]
    kinds = file["tokenizer.ggml.token_type"]
    assert kinds[:2] == [3, 3] and set(kinds[2:300]) == {1} and set(kinds[300:]) == {5}
    merges = [tuple(merge.split(" ")) for merge in file["tokenizer.ggml.merges"]]
    assert len(merges) == 300 - 2 - 256 and all(a + b in vocabulary for a, b in merges)
    assert file["tokenizer.ggml.eos_token_id"] == 0
    assert file["tokenizer.ggml.add_bos_token"] is False


def test_known_pre_tokenizers() -> None:
    """GPT-2 and SmolLM2 by structure; Qwen 2 and Llama 3 by the expressions in transformers."""
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    inner = {**level, "use_regex": False}
    digits = {"type": "Digits", "individual_digits": True}

    def named(*steps: dict[str, Any], normalizer: str | None = None) -> str | None:
        top = steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": list(steps)}
        return gguf_tokens.pre_tokenizer_name(
            {"pre_tokenizer": top, "normalizer": normalizer and {"type": normalizer}}
        )

    def split(regex: str) -> dict[str, Any]:
        return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated"}

    llama3 = PRETOKENIZE_REGEX.replace(r"\p{N}|", r"\p{N}{1,3}|")
    assert named(level) == "gpt-2" and named(digits, level) == "smollm"
    assert named(split(PRETOKENIZE_REGEX), inner, normalizer="NFC") == "qwen2"
    assert named(split(llama3), inner) == "llama-bpe"
    assert named(split(r"\s+"), inner) is None and named(level, normalizer="Lowercase") is None
    assert named({**level, "add_prefix_space": True}) is None
    assert named({**digits, "individual_digits": False}, level) is None


def test_an_unknown_pre_tokenizer_is_written_as_default_with_a_warning(
    tiny: Callable[..., Any], trained: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    import json

    from ropewalk.train.export import stage

    model, plan = trained(tiny("llama"), YarnConfig(factor=8.0))
    vocabulary = json.loads((model / "tokenizer.json").read_text())
    vocabulary["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = False
    (model / "tokenizer.json").write_text(json.dumps(vocabulary))
    output = model.parents[1] / "export"
    output.mkdir()
    metadata = stage.export_model(model, plan, output, "tiny", "f32", None)
    assert GgufFile(output / metadata["gguf"])["tokenizer.ggml.pre"] == "default"
    warning = "export warning: llama.cpp has no name for this tokenizer's way of splitting text"
    assert warning in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["missing", "unigram", "too many words"])
def test_an_unsupported_tokenizer_is_refused(wrong: str, tmp_path: Path, tokenizer: Any) -> None:
    import json

    if wrong != "missing":
        tokenizer.save_pretrained(tmp_path)
        vocabulary = json.loads((tmp_path / "tokenizer.json").read_text())
        if wrong == "unigram":
            vocabulary["model"] = {"type": "Unigram", "vocab": []}
            (tmp_path / "tokenizer.json").write_text(json.dumps(vocabulary))
    reason = {
        "missing": "no tokenizer.json",
        "unigram": "not byte-level BPE",
        "too many words": "300 words and the model 290",
    }
    with pytest.raises(GgufUnsupported, match=reason[wrong]):
        gguf_tokens.vocabulary(gguf_tokens.read_tokenizer(tmp_path), 290)
