"""Each formula against its engine: transformers' functions, mlx-lm's objects, numbers by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from ropewalk.train.export.engines import ENGINES
from ropewalk.train.export.formulas import GgufRope, llama_cpp, mlx_lm, sglang, transformers, vllm

D = 32
YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 8.0,
    "original_max_position_embeddings": 256,
}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "factor": 8.0,
    "original_max_position_embeddings": 256,
    "short_factor": [1 + i / 8 for i in range(D // 2)],
    "long_factor": [1 + i / 2 for i in range(D // 2)],
}
LLAMA3 = {**YARN, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 8.0}
FORMS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default", "rope_theta": 5e5},
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    "yarn": YARN,
    "yarn, large theta": {
        **YARN,
        "rope_theta": 5e5,
        "factor": 32.0,
        "original_max_position_embeddings": 8192,
    },
    "yarn, ramp past the table": {
        **YARN,
        "factor": 4.0,
        "original_max_position_embeddings": 131_072,
    },
    "yarn, betas": {**YARN, "beta_fast": 24.0, "beta_slow": 2.5},
    "yarn, factor": {**YARN, "attention_factor": 1.12},
    "yarn, untruncated": {**YARN, "truncate": False},
    "yarn, mscales": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.5},
    "yarn, one mscale": {**YARN, "mscale": 0.707},
    "yarn, null factor": {**YARN, "factor": None},
    "llama3": LLAMA3,
    "longrope": LONG,
    "longrope, factor": {**LONG, "attention_factor": 1.3},
    "dynamic": DYNAMIC,
}


def window(p: dict[str, Any]) -> int:
    """max_position_embeddings of the config: dynamic NTK keeps the original one."""
    original = p.get("original_max_position_embeddings", 256)
    return original if p["rope_type"] == "dynamic" else round(original * (p.get("factor") or 8))


def llama(p: dict[str, Any]) -> LlamaConfig:
    return LlamaConfig(
        hidden_size=4 * D,
        num_attention_heads=4,
        max_position_embeddings=window(p),
        rope_parameters=dict(p),
    )


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("share", [0.25, 1.0])
def test_the_transformers_formula_equals_transformers(name: str, share: float) -> None:
    p = FORMS[name]
    length = int(share * window(p)) * (8 if p["rope_type"] == "dynamic" else 1)
    if p["rope_type"] == "default":
        expected, factor = LlamaRotaryEmbedding(llama(p)).inv_freq, 1.0
    else:
        expected, factor = ROPE_INIT_FUNCTIONS[p["rope_type"]](
            llama(p), torch.device("cpu"), seq_len=length
        )
    table, m = transformers(p, D, window(p), length)
    np.testing.assert_allclose(table, expected.double().numpy(), rtol=2e-6)
    assert m == pytest.approx(factor, rel=1e-12)


MLX = [name for name in FORMS if FORMS[name].get("factor", 1) is not None]


@pytest.mark.parametrize("name", MLX)
def test_the_mlx_formula_equals_mlx(name: str) -> None:
    """The table and the factor, read from the unit vectors that mlx rotates."""
    mx = pytest.importorskip("mlx.core", reason="mlx is missing: make engines")
    rope_utils = pytest.importorskip(
        "mlx_lm.models.rope_utils", reason="mlx-lm is missing: make engines"
    )
    p = FORMS[name]
    scaling: dict[str, Any] | None = {k: v for k, v in p.items() if k != "rope_theta"}
    if p["rope_type"] == "default":
        scaling = None
    rope = rope_utils.initialize_rope(D, p["rope_theta"], False, scaling, window(p))
    length = 1024 if p["rope_type"] == "dynamic" else 1
    # two positions of a unit vector in each frequency's first half come back as m cos and m sin
    x = mx.zeros((1, D // 2, length + 1, D)) + mx.expand_dims(mx.eye(D)[: D // 2], (0, 2))
    turned = np.array(rope(x)).astype(np.float64)[0]
    i = np.arange(D // 2)
    cos, sin = turned[i, 1, i], turned[i, 1, i + D // 2]
    table, m = mlx_lm(p, D, window(p), length + 1)
    np.testing.assert_allclose(np.arctan2(sin, cos), table, rtol=1e-5)
    np.testing.assert_allclose(np.hypot(cos, sin), m, rtol=1e-6)


def keys_that_matter(engine: Any, p: dict[str, Any]) -> set[str]:
    """The keys that change the result of an engine, at some length."""
    lengths, changing = (100, 300, 2048), set()
    baseline = [engine.compute(p, D, window(p), length) for length in lengths]
    for key in (k for k in p if k not in ("rope_type", "rope_theta")):
        edited = {**p, key: changed(p[key])}
        for length, (inv_freq, factor) in zip(lengths, baseline, strict=True):
            new_inv_freq, new_factor = engine.compute(edited, D, window(p), length)
            if not np.array_equal(inv_freq, new_inv_freq) or factor != new_factor:
                changing.add(key)
    return changing


def changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    return [v / 3 for v in value] if isinstance(value, list) else value / 3


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_reads_exactly_the_keys_that_matter(engine: str) -> None:
    """A key is read if and only if a change of it changes the result for one of the forms."""
    engine_forms = {
        "yarn, sglang": {**YARN, "attn_factor": 0.9},
        "longrope, mscales": {**LONG, "short_mscale": 1.3, "long_mscale": 1.2},
    }
    for kind, reads in ENGINES[engine].reads.items():
        forms = [
            p
            for p in (*FORMS.values(), *engine_forms.values())
            if p["rope_type"] == kind and p.get("factor", 1)
        ]
        assert set().union(*(keys_that_matter(ENGINES[engine], p) for p in forms)) == set(reads), (
            kind
        )


def test_the_attention_factor_of_sglang_and_mlx_by_hand() -> None:
    """SGLang and mlx-lm compute 0.1 ln 8 + 1 = 1.20794, although the config has 1.12."""
    p = FORMS["yarn, factor"]
    assert sglang(p, D, 2048, 2048)[1] == pytest.approx(1.2079442)
    assert mlx_lm(p, D, 2048, 2048)[1] == pytest.approx(1.2079442)
    assert vllm(p, D, 2048, 2048)[1] == 1.12
    assert sglang({**p, "attn_factor": 1.12 / 1.2079442}, D, 2048, 2048)[1] == pytest.approx(1.12)


def test_longrope_by_hand() -> None:
    """Factor sqrt(1 + ln 8 / ln 256) = 1.17260; vLLM and mlx-lm use the long divisors always."""
    p = FORMS["longrope, factor"]
    for engine in (vllm, sglang, mlx_lm):
        assert engine(p, D, 2048, 100)[1] == pytest.approx(1.1726039)
    assert transformers(p, D, 2048, 100)[1] == 1.3
    first = {
        engine: engine(p, D, 2048, 100)[0][1] for engine in (transformers, vllm, sglang, mlx_lm)
    }
    inv = 10_000 ** (-2 / D)
    assert first[transformers] == first[sglang] == pytest.approx(inv / 1.125)
    assert first[vllm] == first[mlx_lm] == pytest.approx(inv / 1.5)
    assert vllm({**p, "long_mscale": 1.3}, D, 2048, 100)[1] == 1.3
    assert sglang({**p, "short_mscale": 1.3}, D, 2048, 100)[1] == 1.3


def test_dynamic_by_hand() -> None:
    """vLLM's theta does not grow; SGLang's grows once, by factor x factor - (factor - 1) = 57."""
    inv = 10_000 ** (-2 / D)
    assert vllm(DYNAMIC, D, 256, 2048)[0][1] == pytest.approx(inv)
    grown = (10_000 * 57 ** (32 / 30)) ** (-2 / D)
    assert sglang(DYNAMIC, D, 256, 10)[0][1] == pytest.approx(grown)
    assert transformers(DYNAMIC, D, 256, 2048)[0][1] == pytest.approx(grown)
    assert transformers(DYNAMIC, D, 256, 10)[0][1] == pytest.approx(inv)


def test_the_converter_has_8192_as_llama3s_original_window() -> None:
    p = {**LLAMA3, "original_max_position_embeddings": 8192}
    converter = ENGINES["llama.cpp (its converter)"].compute
    np.testing.assert_allclose(converter(p, D, 65536, 1)[0], transformers(p, D, 65536, 1)[0])
    ratio = converter(LLAMA3, D, 2048, 1)[0] / transformers(LLAMA3, D, 2048, 1)[0]
    assert np.max(np.abs(ratio - 1)) > 0.5


def test_llama_cpp_keys_by_hand() -> None:
    inv = 10_000 ** (-2 * np.arange(D // 2) / D)
    table, m = llama_cpp(GgufRope(freq_base=1e4, attn_factor=1.1), D)
    assert m == 1.1 and np.allclose(table, inv)
    linear = GgufRope(freq_base=1e4, scaling="linear", factor=4.0)
    assert np.allclose(llama_cpp(linear, D)[0], inv / 4)
    divisors = np.linspace(1, 3, D // 2, dtype=np.float32)
    divided = GgufRope(freq_base=1e4, rope_freqs=divisors)
    assert np.allclose(llama_cpp(divided, D)[0], inv / divisors)
    yarn = GgufRope(freq_base=1e4, scaling="yarn", factor=8.0, original=256, attn_factor=0.5)
    assert llama_cpp(yarn, D)[1] == pytest.approx(0.5 * (0.1 * math.log(8) + 1))
    expected, _ = ROPE_INIT_FUNCTIONS["yarn"](llama(YARN), torch.device("cpu"))
    np.testing.assert_allclose(llama_cpp(yarn, D)[0], expected.double().numpy(), rtol=2e-6)
