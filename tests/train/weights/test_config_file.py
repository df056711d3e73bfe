"""A config.json that is none, or whose sizes cannot be, is one line; transformers is the oracle."""

import contextlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from base_folders import change_config, problems, save
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen2MoeConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.model import ModelConfig
from ropewalk.train.base import Base, base_config, locate
from ropewalk.train.weights import check


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save("llama", tmp_path / "base")


def refusal(folder: Path) -> str:
    """What the base is refused with. Raises where it is not, or with another error."""
    with pytest.raises(ConfigError) as refused:
        locate(ModelConfig(path=str(folder)), folder.parent / "cache")
        config = base_config(Base(str(folder)))
        if lines := check.weight_problems(folder, config, "model.path is base"):
            raise ConfigError("\n".join(lines))
    message = str(refused.value)
    assert message.startswith("model.path is base; ") and "\n" not in message, message
    return message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"{", "is no JSON"),
        (b'{"a": 1,}', "is no JSON"),
        (b"{'a': 1}", "is no JSON"),
        (b'\xef\xbb\xbf{"model_type": "llama"}', "byte order mark"),
        ('{"model_type": "llama"}'.encode("utf-16"), "is not UTF-8"),
        (b'{"model_type": "llama", "rms_norm_eps": NaN}', "NaN is no number"),
        (b"[]", "is a JSON list"),
        (b"null", "is a JSON NoneType"),
        (b"{}", "has no model_type"),
        (b'{"model_type": 1}', "has no model_type"),
        (b'{"model_type": "llama", "model_type": "qwen2"}', "model_type is there twice"),
        (b'{"model_type": "no_such_model"}', "must be readable by transformers"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of git-lfs"),
        (b"<!DOCTYPE html>", "a web page"),
    ],
)
def test_a_file_that_is_no_config_is_refused(folder: Path, content: bytes, reason: str) -> None:
    (folder / "config.json").write_bytes(content)
    assert reason in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        *(
            ({key: value}, f"has {key} {value!r}; it must be a whole number of at least 1")
            for key in ("hidden_size", "num_attention_heads", "num_hidden_layers", "head_dim")
            for value in (0, -2, 1.5, "64", True)
        ),
        ({"rms_norm_eps": -1e-5}, "rms_norm_eps -1e-05; it must be a number of at least 0"),
        ({"vocab_size": -1}, "vocab_size -1"),
        ({"num_key_value_heads": 0}, "num_key_value_heads 0"),
        ({"num_key_value_heads": 3}, "must be a multiple of the second"),
        ({"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": None}, "not a multiple"),
        ({"pad_token_id": 128}, "pad_token_id 128 and vocab_size 128"),
        ({"pad_token_id": -129}, "pad_token_id -129"),
        ({"eos_token_id": 128}, "eos_token_id 128 and vocab_size 128"),
        ({"eos_token_id": [2, 500]}, "eos_token_id 500 and vocab_size 128"),
        ({"hidden_act": "no_such_function"}, "cannot build its config.json"),
        ({"rope_parameters": 7}, ""),
        ({"hidden_size": None}, ""),
        ({"layer_types": 3, "torch_dtype": "float3"}, ""),
    ],
)
def test_sizes_that_cannot_be_are_refused(
    folder: Path, changes: dict[str, Any], reason: str
) -> None:
    assert reason in refusal(change_config(folder, **changes))


@pytest.mark.parametrize("window", [0, -1])
def test_a_sliding_window_that_holds_no_token_is_refused(tmp_path: Path, window: int) -> None:
    folder = save("mistral", tmp_path / "base")
    change_config(folder, sliding_window=window)
    assert f"has sliding_window {window}; a token sees at least itself" in refusal(folder)


def test_a_window_that_no_layer_uses_may_be_anything(tmp_path: Path) -> None:
    """transformers' own Qwen2MoeConfig writes 0."""
    Qwen2MoeConfig().save_pretrained(str(tmp_path))
    assert base_config(Base(str(tmp_path))).sliding_window == 0


def test_an_end_of_text_that_says_there_is_none_is_taken(folder: Path) -> None:
    change_config(folder, eos_token_id=-1)
    assert base_config(Base(str(folder))).eos_token_id == -1


def test_more_experts_a_token_than_there_are_are_refused(tmp_path: Path) -> None:
    folder = change_config(save("mixtral", tmp_path / "base"), num_experts_per_tok=5)
    assert "num_experts_per_tok 5 and num_local_experts 4" in refusal(folder)


def test_a_negative_pad_token_is_what_torch_takes_it_for(folder: Path) -> None:
    """LLaMA has -1, torch's word for the last row."""
    change_config(folder, pad_token_id=-1)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.get_input_embeddings().padding_idx == 127
    assert problems(folder) == []


@pytest.mark.parametrize("method", ["fp8", "gptq", "awq", "bitsandbytes", "mxfp4", None])
@pytest.mark.parametrize("key", ["quantization_config", "compression_config"])
def test_quantised_weights_are_refused_by_name(folder: Path, key: str, method: str | None) -> None:
    (line,) = problems(change_config(folder, **{key: {"quant_method": method, "bits": 4}}))
    assert f"a quantization_config ({method or 'unnamed'})" in line


def test_an_empty_quantization_config_is_refused_since_transformers_fails_at_it(
    folder: Path,
) -> None:
    change_config(folder, quantization_config={})
    with pytest.raises(ValueError, match="quant_method"):
        AutoModelForCausalLM.from_pretrained(folder)
    (line,) = problems(folder)
    assert "a quantization_config (unnamed)" in line and "or remove the key" in line


@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation"])
def test_a_kernel_that_the_config_names_is_not_needed(folder: Path, key: str) -> None:
    """Folders of older versions name the kernel that wrote them; the trainer has its own."""
    change_config(folder, **{key: "flash_attention_2"})
    if importlib.util.find_spec("flash_attn") is None:
        with pytest.raises(ImportError):
            AutoModelForCausalLM.from_pretrained(folder)
    config = base_config(Base(str(folder)))
    assert check.weight_problems(folder, config, "model.path is base") == []
    AutoModelForCausalLM.from_pretrained(folder, config=config)


@pytest.mark.parametrize("key", ["return_dict", "output_attentions", "output_hidden_states"])
def test_outputs_are_those_that_the_trainer_reads_whatever_the_config_asks_for(
    folder: Path, key: str
) -> None:
    """transformers' own load fails at tuples, cannot be saved, or hands out more tensors."""
    names = ["logits", "past_key_values"]

    def outputs(**kwargs: Any) -> list[str]:
        model = AutoModelForCausalLM.from_pretrained(folder, **kwargs)
        model.set_attn_implementation("sdpa")
        output = model(torch.zeros(1, 4, dtype=torch.long))
        model.save_pretrained(folder.parent / "saved")
        return [*output]

    change_config(folder, **{key: key != "return_dict"})
    with contextlib.suppress(AttributeError, StrictDataclassError):
        assert outputs() != names
    assert outputs(config=base_config(Base(str(folder)))) == names
    reloaded = AutoModelForCausalLM.from_pretrained(folder.parent / "saved")
    assert [*reloaded(torch.zeros(1, 4, dtype=torch.long))] == names


PARTIAL = ("phi", "glm", "glm 4", "gpt-neox", "stablelm", "nemotron")


@pytest.mark.parametrize("rope_type", ["default", "linear", "yarn"])
@pytest.mark.parametrize("architecture", ["llama", "mistral", "qwen3", "olmo", *PARTIAL])
def test_a_share_of_rotary_dimensions_is_refused_where_the_code_does_not_turn_it(
    tmp_path: Path, architecture: str, rope_type: str
) -> None:
    """The oracle: transformers' own forward pass under a table that it scales for the share."""
    folder = save(architecture, tmp_path / "base")
    values = json.loads((folder / "config.json").read_text())
    scaled = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 128}
    values["rope_parameters"] |= {"partial_rotary_factor": 0.5, **scaled}
    (folder / "config.json").write_text(json.dumps(values))
    model = AutoModelForCausalLM.from_pretrained(folder)
    try:
        model(torch.zeros(1, 4, dtype=torch.long))
        computes = True
    except RuntimeError:
        computes = False
    assert computes == (architecture in PARTIAL)
    values["rope_parameters"]["rope_type"] = rope_type
    (folder / "config.json").write_text(json.dumps(values))
    refused = ["has partial_rotary_factor 0.5" in line for line in problems(folder)]
    assert refused == ([] if computes else [True])


@pytest.mark.parametrize("word", [".", "..", "base/.", "base/../base"])
def test_a_base_is_named_by_its_folder_however_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    folder = save("llama", tmp_path / "base")
    (folder / "below").mkdir()
    monkeypatch.chdir({".": folder, "..": folder / "below"}.get(word, tmp_path))
    assert locate(ModelConfig(path=word), tmp_path / "cache").name == "base"


def test_weights_of_fewer_bits_without_their_config_are_refused(folder: Path) -> None:
    """The values without their scales are 448 times too large, which transformers trains."""
    tensors = load_file(str(folder / "model.safetensors"))
    name = "model.layers.0.mlp.up_proj.weight"
    scale = tensors[name].abs().max() / 448
    scaled = {name: (tensors[name] / scale).to(torch.float8_e4m3fn), f"{name}_scale_inv": scale}
    save_file(tensors | scaled, str(folder / "model.safetensors"))
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()[name]
    assert loaded.abs().max() == 448
    (line,) = problems(folder)
    assert f"{name} (F8_E4M3), {name}_scale_inv" in line
