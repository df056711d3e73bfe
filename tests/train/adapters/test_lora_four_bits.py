"""QLoRA on a CPU: bitsandbytes' own kernels, against peft and transformers alone."""

import importlib.util
from pathlib import Path
from typing import Any

import lora_ranks
import peft
import pytest
import ranks
import torch
from models import tiny_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.lora import LoraConfig
from ropewalk.train.adapters import quantize

has_bitsandbytes = importlib.util.find_spec("bitsandbytes") is not None
needs_bitsandbytes = pytest.mark.skipif(
    not has_bitsandbytes, reason="needs bitsandbytes: pip install 'ropewalk[qlora]'"
)
LORA = {"rank": 4, "norms": True, "quantize": "nf4"}
IDS = torch.arange(40)[None]


def four_bit(folder: Path) -> Any:
    """The base in 4 bits by transformers alone, with the settings of the QLoRA paper."""
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, quantization_config=settings, device_map={"": "cpu"}
    ).eval()


@needs_bitsandbytes
def test_a_four_bit_base_is_trained_saved_and_merged(tmp_path: Path) -> None:
    base = tmp_path / "base"
    tiny_model(hidden_size=64, intermediate_size=128).save_pretrained(base)
    result = ranks.run(
        2, lora_ranks.train_four_bits, str(tmp_path), str(base), {"zero_stage": 2}, LORA
    )[0]
    live = torch.from_numpy(result["after"])
    with torch.no_grad():
        torch.testing.assert_close(
            four_bit(base)(input_ids=IDS).logits[0], torch.from_numpy(result["before"])
        )
        adapted = peft.PeftModel.from_pretrained(four_bit(base), tmp_path / "adapter").eval()
        torch.testing.assert_close(adapted(input_ids=IDS).logits[0], live, rtol=1e-5, atol=1e-5)
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
        torch.testing.assert_close(merged(input_ids=IDS).logits[0], live, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(live, torch.from_numpy(result["before"]), atol=1e-2)
    assert all(p.dtype == torch.float32 for p in merged.parameters())
    count = sum(p.numel() for p in tiny_model(hidden_size=64, intermediate_size=128).parameters())
    assert int(result["trainable"].split(" of ")[1].split()[0].replace(",", "")) > count


def test_four_bits_without_bitsandbytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    find = quantize.importlib.util.find_spec
    monkeypatch.setattr(
        quantize.importlib.util,
        "find_spec",
        lambda name: None if name == "bitsandbytes" else find(name),
    )
    pattern = (
        r"^train\.lora\.quantize is nf4; it needs bitsandbytes; "
        r"pip install 'ropewalk\[qlora\]' or train\.lora\.quantize=none"
    )
    with pytest.raises(ConfigError, match=pattern):
        quantize.load_kwargs(LoraConfig(**LORA), torch.float32, torch.device("cpu"))
    assert quantize.load_kwargs(LoraConfig(rank=4), torch.float32, torch.device("cpu")) == {}
