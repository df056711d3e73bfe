"""An adapter with embeddings and norms through the command line: two ranks, ZeRO 3, the demo's base."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ENV, command, corpus, ropewalk

WORDS = [
    "name=lora",
    "train.launcher.ranks_per_node=2",
    "train.zero_stage=3",
    "train.lora.rank=4",
    "train.lora.embeddings=true",
    "train.lora.norms=true",
    "train.memory.activation_checkpointing=true",
]
# plain peft and transformers, in a process in which ropewalk cannot be imported
READ = """
import json, sys, torch
sys.modules["ropewalk"] = None
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM
base, train = sys.argv[1:]
rope = json.load(open(f"{train}/adapter/rope.json"))
config = AutoConfig.from_pretrained(base)
config.rope_parameters, config.max_position_embeddings = rope["rope_parameters"], rope["max_position_embeddings"]
plain = AutoModelForCausalLM.from_pretrained(base, config=config, dtype=torch.float32)
ids = torch.arange(500)[None] % 700 + 5
with torch.no_grad():
    before = plain(input_ids=ids).logits[0]
    adapted = PeftModel.from_pretrained(plain, f"{train}/adapter").eval()(input_ids=ids).logits[0]
    merged = AutoModelForCausalLM.from_pretrained(f"{train}/model", dtype=torch.float32)(input_ids=ids).logits[0]
print("SAID", (adapted - merged).abs().max().item(), (adapted - before).abs().max().item())
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    corpus(folder)
    return folder


def test_adapter_and_merged_model_of_a_run_are_one_in_plain_peft(work: Path) -> None:
    from ropewalk.train.base import BASES

    output = ropewalk(work, "train", *WORDS)
    assert "lora: rank 4 beside 16 linear layers (k_proj, o_proj, q_proj, v_proj); " in output
    assert "parameters are trained (" in output and "rope proof after reload" in output
    train = work / "runs" / "lora" / "train"
    assert f"wrote {train / 'adapter'}" in output
    arguments = [sys.executable, "-c", READ, str(BASES / "demo"), str(train)]
    done = subprocess.run(
        arguments, env=ENV, check=True, timeout=300, capture_output=True, text=True
    )
    apart, moved = map(float, done.stdout.split("SAID")[1].split())
    assert apart < 3e-5 and moved > 1e-2
    config = json.loads((train / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "demo"
    for file in (train / "adapter").glob("*.json"):
        assert str(work) not in file.read_text()


def test_a_target_that_matches_nothing_is_refused_before_a_token_is_written(work: Path) -> None:
    arguments = command(
        work, "train", "name=none", "train.lora.rank=4", "train.lora.targets=[q_pro]"
    )
    done = subprocess.run(arguments, env=ENV, cwd=work, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2
    assert "train.lora.targets is q_pro; it must match a linear layer of the model" in done.stderr
    assert not list((work / "runs" / "none").glob("data*"))
