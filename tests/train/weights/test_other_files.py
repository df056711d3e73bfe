"""Files beside the weights: transformers is the oracle of what they would do."""

from pathlib import Path

import pytest
from base_folders import save
from transformers import AutoModelForCausalLM

from ropewalk.train.weights.other_files import other_file_problems


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save("llama", tmp_path / "base")


def problems(folder: Path) -> list[str]:
    return other_file_problems(folder, "model.path is base")


def test_an_adapter_beside_the_weights_is_refused(folder: Path) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config).save_pretrained(folder)
    names = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert any("lora_A" in name for name in names)  # transformers attaches it without a word
    (line,) = problems(folder)
    assert "adapter_config.json lies beside" in line and "merge it" in line


def test_pointers_of_git_lfs_are_named(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    (line,) = problems(folder)
    assert "tokenizer.json is a pointer of git-lfs" in line


def test_a_folder_that_transformers_wrote_passes(folder: Path) -> None:
    assert problems(folder) == []
