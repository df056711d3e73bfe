"""An adapter with embeddings and norms through the command line: two ranks, ZeRO 3."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ENV, command, corpus, ropewalk

OVERRIDES = [
    "name=lora",
    "train.launcher.ranks_per_node=2",
    "train.zero_stage=3",
    "train.lora.rank=4",
    "train.lora.embeddings=true",
    "train.lora.norms=true",
    "train.memory.activation_checkpointing=true",
]
# peft and transformers in a process in which ropewalk cannot be imported
READ = """
import json, sys, torch
sys.modules["ropewalk"] = None
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM
base, train = sys.argv[1:]
rope = json.load(open(f"{train}/adapter/rope.json"))
config = AutoConfig.from_pretrained(base)
config.rope_parameters = rope["rope_parameters"]
config.max_position_embeddings = rope["max_position_embeddings"]
model = AutoModelForCausalLM.from_pretrained(base, config=config, dtype=torch.float32)
ids = torch.arange(500)[None] % 700 + 5
with torch.no_grad():
    base_logits = model(input_ids=ids).logits
    adapted = PeftModel.from_pretrained(model, f"{train}/adapter").eval()(input_ids=ids).logits
    model = AutoModelForCausalLM.from_pretrained(f"{train}/model", dtype=torch.float32)
    merged = model(input_ids=ids).logits
print("ERRORS", (adapted - merged).abs().max().item(), (adapted - base_logits).abs().max().item())
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    corpus(folder)
    return folder


def test_adapter_and_merged_model_of_a_run_give_equal_logits_in_peft(work: Path) -> None:
    from ropewalk.train.base import BASES

    output = ropewalk(work, "train", *OVERRIDES)
    assert "lora: rank 4 beside 16 linear layers (k_proj, o_proj, q_proj, v_proj); " in output
    assert "parameters are trained (" in output and "rope proof after reload" in output
    train = work / "runs" / "lora" / "train"
    assert f"wrote {train / 'adapter'}" in output
    arguments = [sys.executable, "-c", READ, str(BASES / "demo"), str(train)]
    process = subprocess.run(
        arguments, env=ENV, check=True, timeout=300, capture_output=True, text=True
    )
    from_merged, from_base = map(float, process.stdout.split("ERRORS")[1].split())
    assert from_merged < 3e-5 and from_base > 1e-2
    config = json.loads((train / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "demo"
    for file in (train / "adapter").glob("*.json"):
        assert str(work) not in file.read_text()


def test_a_target_that_matches_nothing_is_refused_before_a_token_is_written(work: Path) -> None:
    overrides = ["train.lora.rank=4", "train.lora.targets=[q_pro]"]
    arguments = command(work, "train", "name=none", *overrides)
    process = subprocess.run(
        arguments, env=ENV, cwd=work, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 2
    assert (
        "train.lora.targets is q_pro; it must match a linear layer of the model" in process.stderr
    )
    assert not list((work / "runs" / "none").glob("data*"))
