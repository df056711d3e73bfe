"""Rotary keys of GGUF as `rope_parameters`: transformers computes from them what llama.cpp does.

llama.cpp's side is written here from its source (`ggml_rope_yarn`, `llama-context.cpp`, and
`convert_hf_to_gguf.py` for Llama 3's divisors); transformers' side is its own code.
"""

import math
from typing import Any

import numpy as np
import pytest
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ropewalk.train.gguf_base.rope_keys import RopeKeys, rope_parameters

DIM, WINDOW = 64, 4096


def llama_cpp(keys: dict[str, Any], freqs: np.ndarray | None) -> tuple[np.ndarray, float]:
    """(d/2,) frequencies and the factor on cos and sin."""
    base = keys.get("rope.freq_base", 10000.0)
    kind = keys.get("rope.scaling.type", "linear")
    factor = keys.get("rope.scaling.factor", keys.get("rope.scale_linear", 0.0)) or 1.0
    scale = 1.0 if kind == "none" else 1 / factor
    m = keys.get("rope.scaling.attn_factor", 1.0)
    result = []
    for i in range(DIM // 2):
        extrapolated = base ** (-2 * i / DIM) / (1.0 if freqs is None else freqs[i])
        mix = 0.0
        if kind == "yarn" and factor != 1:
            n = keys.get("rope.scaling.original_context_length", WINDOW)
            fast = keys.get("rope.scaling.yarn_beta_fast", 32.0)
            slow = keys.get("rope.scaling.yarn_beta_slow", 1.0)
            low, high = (
                DIM * math.log(n / (turns * 2 * math.pi)) / (2 * math.log(base))
                for turns in (fast, slow)
            )
            low, high = max(0, math.floor(low)), min(DIM - 1, math.ceil(high))
            mix = 1 - min(1, max(0, (i - low) / max(0.001, high - low)))
        result.append(extrapolated * scale * (1 - mix) + extrapolated * mix)
    if kind == "yarn" and factor != 1:
        m *= 1 + 0.1 * math.log(factor)
    return np.array(result), m


def transformers_table(parameters: dict[str, Any], length: int) -> tuple[np.ndarray, float]:
    config = LlamaConfig(
        hidden_size=DIM, num_attention_heads=1, max_position_embeddings=WINDOW,
        rope_parameters=dict(parameters),
    )  # fmt: skip
    kind = parameters["rope_type"]
    if kind == "default":
        theta = parameters["rope_theta"]
        return theta ** (-np.arange(0, DIM, 2) / DIM), 1.0
    inv_freq, factor = ROPE_INIT_FUNCTIONS[kind](config, device=None, seq_len=length)
    return inv_freq.double().numpy(), factor


def read(keys: dict[str, Any], **tensors: Any) -> dict[str, Any]:
    def refuse(key: str, value: object, rule: str) -> Exception:
        return ValueError(f"{key} is {value}; {rule}")

    arrays = {name: tensors.get(name) for name in ("freqs", "long", "short")}
    return rope_parameters(RopeKeys(keys, DIM, WINDOW, **arrays), refuse)


def llama3_divisors(
    theta: float, factor: float, low: float, high: float, original: int
) -> np.ndarray:
    """As `convert_hf_to_gguf.py` writes `rope_freqs.weight`."""
    divisors = []
    for frequency in theta ** (-np.arange(0, DIM, 2) / DIM):
        wavelength = 2 * math.pi / frequency
        if wavelength < original / high:
            divisors.append(1.0)
        elif wavelength > original / low:
            divisors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, np.float32).astype(np.float64)


S = "rope.scaling."
BY_HAND = np.linspace(1, 6, DIM // 2) ** 1.5
CASES: dict[str, tuple[dict[str, Any], np.ndarray | None, str]] = {
    "nothing": ({}, None, "default"),
    "none, with a factor": ({f"{S}type": "none", f"{S}factor": 4.0}, None, "default"),
    "theta": ({"rope.freq_base": 500000.0}, None, "default"),
    "linear without a type": ({f"{S}factor": 4.0}, None, "linear"),
    "the old name": ({"rope.scale_linear": 8.0}, None, "linear"),
    "a factor of 0": ({f"{S}type": "linear", f"{S}factor": 0.0}, None, "default"),
    "yarn": (
        {f"{S}type": "yarn", f"{S}factor": 4.0, f"{S}original_context_length": 1024}, None, "yarn"
    ),
    "yarn of the window": ({f"{S}type": "yarn", f"{S}factor": 4.0}, None, "yarn"),
    "yarn, attn_factor": (
        {f"{S}type": "yarn", f"{S}factor": 4.0, f"{S}original_context_length": 1024,
         f"{S}attn_factor": 0.875},
        None,
        "yarn",
    ),
    "yarn, betas": (
        {f"{S}type": "yarn", f"{S}factor": 4.0, f"{S}original_context_length": 1024,
         f"{S}yarn_beta_fast": 24.0, f"{S}yarn_beta_slow": 2.0, f"{S}yarn_ext_factor": 1.0},
        None,
        "yarn",
    ),
    "yarn x1": ({f"{S}type": "yarn", f"{S}factor": 1.0}, None, "default"),
    "divisors": ({f"{S}original_context_length": 512}, BY_HAND, "longrope"),
    "divisors and a factor": (
        {f"{S}original_context_length": 512, f"{S}factor": 2.0}, BY_HAND, "longrope"
    ),
    "divisors and yarn": (
        {f"{S}type": "yarn", f"{S}factor": 4.0, f"{S}original_context_length": 1024},
        BY_HAND,
        "longrope",
    ),
    "attn_factor": (
        {f"{S}original_context_length": 1024, f"{S}attn_factor": 1.25}, None, "longrope"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("keys", "freqs", "kind"), CASES.values(), ids=CASES)
def test_transformers_computes_what_llama_cpp_computes(
    keys: dict[str, Any], freqs: np.ndarray | None, kind: str
) -> None:
    parameters = read(keys, freqs=freqs)
    assert parameters["rope_type"] == kind
    expected, expected_factor = llama_cpp(keys, freqs)
    for length in (16, WINDOW):
        table, factor = transformers_table(parameters, length)
        assert np.allclose(table, expected, rtol=1e-6, atol=0)
        assert math.isclose(factor, expected_factor, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("theta", "factor", "high", "original", "window"),
    [
        (500000.0, 8.0, 4.0, 8192, 131072),  # Llama 3.1
        (500000.0, 32.0, 4.0, 8192, 131072),  # Llama 3.2
        (10000.0, 4.0, 4.0, 256, 1024),
        (10000.0, 8.0, 6.0, 2048, 16384),
    ],
)
def test_divisors_of_llama_3_give_its_numbers(
    theta: float, factor: float, high: float, original: int, window: int
) -> None:
    """The file holds the divisors alone; original window and factors are those of the config."""
    freqs = llama3_divisors(theta, factor, 1.0, high, original)
    rope = RopeKeys({"rope.freq_base": theta}, DIM, window, freqs, None, None)
    assert rope_parameters(rope, lambda *_: ValueError()) == {
        "rope_type": "llama3",
        "rope_theta": theta,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }


def test_divisors_for_long_and_short_texts_switch_at_the_original_window() -> None:
    keys = {f"{S}original_context_length": 512, f"{S}attn_factor": 1.19}
    parameters = read(keys, long=BY_HAND, short=np.ones(DIM // 2))
    for length, freqs in ((512, None), (513, BY_HAND)):
        table, factor = transformers_table(parameters, length)
        assert np.allclose(table, llama_cpp({}, freqs)[0], rtol=1e-6, atol=0)
        assert math.isclose(factor, 1.19, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("keys", "tensors", "expected"),
    [
        ({f"{S}type": "dynamic"}, {}, f"{S}type is dynamic"),
        ({f"{S}type": "longrope"}, {}, f"{S}type is longrope; rope_factors_long.weight"),
        ({f"{S}type": "yarn", f"{S}factor": 2.0, f"{S}yarn_ext_factor": 0.5}, {}, "ext_factor"),
        ({}, {"freqs": BY_HAND}, f"{S}original_context_length is not set"),
        ({f"{S}attn_factor": 1.5}, {}, f"{S}original_context_length is not set"),
        ({}, {"freqs": np.ones(8)}, "rope_freqs.weight is of shape [8]"),
        ({}, {"long": BY_HAND}, "rope_factors_short.weight must be there"),
        ({}, {"long": BY_HAND, "short": BY_HAND}, f"{S}original_context_length is not set"),
        (
            {f"{S}factor": 2.0, f"{S}original_context_length": 512},
            {"long": BY_HAND, "short": BY_HAND},
            f"{S}factor is 2.0",
        ),
    ],
)
def test_keys_without_a_form_in_transformers_are_refused(
    keys: dict[str, Any], tensors: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected.replace("[", r"\[").replace("]", r"\]")):
        read(keys, **tensors)


def test_other_divisors_are_not_taken_for_those_of_llama_3() -> None:
    """One of them is off by 2e-5."""
    freqs = llama3_divisors(10000.0, 4.0, 1.0, 4.0, 256)
    freqs[20] *= 1.00002
    with pytest.raises(ValueError, match="original_context_length is not set"):
        read({}, freqs=freqs)
