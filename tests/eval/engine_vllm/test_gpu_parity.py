"""vLLM itself beside the engine, on a CUDA device (`make test-gpu`).

ROPEWALK_VLLM_PYTHON names the interpreter of an environment that has vLLM.
"""

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from ropewalk.conf.eval_vllm import VllmConfig
from ropewalk.eval.engine.decoding import End
from ropewalk.eval.engine.engine import Engine
from ropewalk.eval.engine_vllm.engine import VllmEngine, job
from ropewalk.eval.engine_vllm.folder import end_tokens
from ropewalk.eval.engine_vllm.process import started
from ropewalk.eval.requests import Prompt, Prompts
from ropewalk.train import attention
from ropewalk.train.base import BASES

PYTHON = os.environ.get("ROPEWALK_VLLM_PYTHON")
PROMPTS, NEW = 64, 16


def version() -> str | None:
    if PYTHON is None:
        return None
    program = "import importlib.metadata as m; print(m.version('vllm'))"
    found = subprocess.run([PYTHON, "-c", program], capture_output=True, text=True, check=False)
    return found.stdout.strip() or None


@pytest.mark.gpu
def test_vllm_decodes_nearly_the_same_tokens() -> None:
    """In bf16 other kernels flip near ties: a share of equal replies is held, not all of them."""
    if version() is None:
        pytest.skip("ROPEWALK_VLLM_PYTHON names no interpreter with vLLM")
    folder = Path(BASES) / "demo"
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.to("cuda")
    needs = attention.requirements_of(model, model.dtype)
    model.set_attn_implementation(attention.register("auto", None, needs))
    rng, end = np.random.default_rng(0), End(end_tokens(folder), None)
    texts = rng.integers(3, model.config.vocab_size, (PROMPTS, 200))
    asked = [Prompts((Prompt(text, text[:4], max_new_tokens=NEW),)) for text in texts]
    expected: list[Any] = Engine(model, 4096).measure(asked)
    del model
    torch.cuda.empty_cache()
    about = job(folder, VllmConfig(python=PYTHON), end, dtype="bfloat16", max_model_len=200 + NEW)
    with started(PYTHON, about, None) as vllm:
        found: list[Any] = VllmEngine(vllm, 4096, end).measure(asked)
    equal = [ours.ids == theirs.ids for (ours,), (theirs,) in zip(found, expected, strict=True)]
    first = [a.ids[0] == b.ids[0] for (a,), (b,) in zip(found, expected, strict=True)]
    assert np.mean(first) >= 0.95 and np.mean(equal) >= 0.8, (np.mean(first), np.mean(equal))
