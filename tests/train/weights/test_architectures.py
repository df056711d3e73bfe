"""Damaged weights of many architectures are refused by name; what transformers writes passes.

The oracle is transformers' own load: the keys it misses, leaves over or does not fit, and values.
"""

from pathlib import Path

import base_folders
import pytest
import torch
from base_folders import ARCHITECTURES, DAMAGES, copy_with, load, problems, save, stored
from safetensors import safe_open
from transformers import AutoConfig, AutoModel


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_damaged_tensor_is_refused_by_name(
    tmp_path: Path, folders: Path, architecture: str, damage: str
) -> None:
    source, tensors = stored(architecture, folders)
    names = sorted(tensors)
    name = names[(7 * [*DAMAGES].index(damage) + 3) % len(names)]
    folder = copy_with(source, tmp_path / "damaged", DAMAGES[damage](tensors, name))
    (line,) = problems(folder) if damage != "renamed" else problems(folder)[-1:]
    assert name in line and line.startswith("model.path is damaged; ")
    assert is_damaged(folder, damage, name)


def is_damaged(folder: Path, damage: str, name: str) -> bool:
    """By transformers' load; it casts integers and keeps nan without a word."""
    if damage == "of integers":
        with safe_open(folder / "model.safetensors", "pt") as file:
            return bool(file.get_slice(name).get_dtype() == "I8")
    model, info = load(folder)
    if damage == "with nan":
        return any(bool(p.isnan().any()) for p in model.state_dict().values())
    return any(info.values())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_undamaged_base_passes(folders: Path, architecture: str) -> None:
    folder, _ = stored(architecture, folders)
    assert not any(load(folder)[1].values())
    assert problems(folder) == []


@pytest.mark.parametrize(
    ("architecture", "form"),
    [
        ("llama", {"max_shard_size": "40KB"}),
        ("gemma", {"max_shard_size": "40KB"}),  # tied
        ("mixtral", {"max_shard_size": "40KB"}),
        ("mixtral", {"save_original_format": False}),  # experts in one tensor
        ("qwen3 moe", {"save_original_format": False}),
        ("deepseek v3", {"save_original_format": False}),
    ],
)
def test_every_form_that_transformers_writes_passes(
    tmp_path: Path, architecture: str, form: dict[str, object]
) -> None:
    folder = save(architecture, tmp_path / "base", **form)
    assert not any(load(folder)[1].values())
    assert problems(folder) == []


def test_bf16_passes(tmp_path: Path, folders: Path) -> None:
    source, tensors = stored("qwen3", folders)
    halves = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    assert problems(copy_with(source, tmp_path / "base", halves)) == []


@pytest.mark.parametrize("architecture", ["gemma", "llama"])
def test_the_body_alone_passes_where_its_head_is_tied(
    tmp_path: Path, folders: Path, architecture: str
) -> None:
    """Saved without the head: names without `model.` in front."""
    source, _ = stored(architecture, folders)
    config = AutoConfig.from_pretrained(source)
    AutoModel.from_pretrained(source).save_pretrained(str(tmp_path / "body"))
    assert not any(name.startswith("model.") for name in load_names(tmp_path / "body"))
    missing = load(tmp_path / "body")[1]["missing_keys"]
    assert bool(missing) == (not config.tie_word_embeddings)
    lines = problems(tmp_path / "body")
    assert len(lines) == len(missing) and all("lm_head.weight" in line for line in lines)


def load_names(folder: Path) -> list[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return list(file.keys())


@pytest.mark.parametrize("changes", [{"vocab_size": 136}, {"num_hidden_layers": 3}])
def test_a_config_of_another_model_is_refused(
    tmp_path: Path, folders: Path, changes: dict[str, int]
) -> None:
    source, tensors = stored("llama", folders)
    folder = base_folders.change_config(copy_with(source, tmp_path / "base", tensors), **changes)
    info = load(folder)[1]
    named = " ".join(problems(folder))
    assert info["missing_keys"] or info["mismatched_keys"]
    keys = [*sorted(info["missing_keys"])[:1], *(key for key, *_ in info["mismatched_keys"])]
    assert all(key in named for key in keys)


def test_experts_of_other_numbers_are_refused(tmp_path: Path, folders: Path) -> None:
    """transformers stacks them in their order, so that a gap moves every later expert."""
    source, tensors = stored("mixtral", folders)
    renumbered = {name.replace("experts.0.", "experts.9."): t for name, t in tensors.items()}
    folder = copy_with(source, tmp_path / "base", renumbered)
    lacks, extra = problems(folder)
    assert not any(load(folder)[1].values())  # transformers does not notice
    assert "experts.0.w1.weight" in lacks and "experts.9.w1.weight" in extra


def test_a_second_tensor_for_a_parameter_is_refused(tmp_path: Path, folders: Path) -> None:
    source, tensors = stored("llama", folders)
    both = tensors | {"norm.weight": tensors["model.norm.weight"].clone()}
    folder = copy_with(source, tmp_path / "base", both)
    (line,) = problems(folder)
    assert not any(load(folder)[1].values())
    assert "model.norm.weight" in line and "fill one parameter" in line


def test_known_leftovers_are_told_by_name(
    tmp_path: Path, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, tensors = stored("llama", folders)
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    folder = copy_with(source, tmp_path / "base", tensors | {name: torch.ones(8)})
    assert problems(folder) == []
    assert not load(folder)[1]["unexpected_keys"]
    assert name in "".join(capsys.readouterr())


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_tensor_is_missed(tmp_path: Path, folders: Path, architecture: str) -> None:
    source, tensors = stored(architecture, folders)
    for number, name in enumerate(tensors):
        for damage, change in DAMAGES.items():
            folder = tmp_path / f"{number} {damage}"
            lines = problems(copy_with(source, folder, change(tensors, name)))
            assert any(name in line for line in lines), (name, damage, lines)
