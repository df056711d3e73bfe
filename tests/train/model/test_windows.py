"""What else names the old window is raised with it: transformers then uses the new one in full."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from ropewalk.conf.rope_methods import DynamicConfig, YarnConfig
from ropewalk.train.model.windows import CONFIG, raise_limits
from ropewalk.train.rope import plan as rope_plan


@pytest.fixture
def trained(tmp_path: Path, tokenizer: Any) -> Callable[..., tuple[Path, Any]]:
    """A model of window 64 under a plan, beside files that still name 64."""
    from models import tiny_config

    def make(rope: Any = None) -> tuple[Path, Any]:
        config = tiny_config(vocab_size=300, bos_token_id=0, eos_token_id=299)
        plan = rope_plan.make(rope or YarnConfig(factor=4.0), config, "tiny")
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(rope_plan.apply(plan, config))
        folder = tmp_path / "model"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        edit(folder / "generation_config.json", max_length=64, temperature=0.7, do_sample=False)
        edit(folder / "tokenizer_config.json", model_max_length=64)
        edit(folder / "config.json", **dict.fromkeys(CONFIG, 64))
        return folder, plan

    return make


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_transformers_generates_past_the_old_window(trained: Callable[..., Any]) -> None:
    folder, plan = trained()

    def generated() -> int:
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.generation_config.eos_token_id = None
        return int(model.generate(torch.arange(40)[None]).shape[1])

    assert generated() == 64
    assert len(list(raise_limits(folder, plan))) == 2 + len(CONFIG)
    assert generated() == 256


def test_the_tokenizer_takes_texts_up_to_the_new_window(
    trained: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """transformers' warning of a text that is too long goes to stderr; truncation cuts at it."""
    folder, plan = trained()
    lines = list(raise_limits(folder, plan))
    assert "tokenizer_config.json: model_max_length 64 -> 256, the new window" in lines
    logging.set_verbosity_warning()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with warnings.catch_warnings():
        ids = tokenizer("rope " * 100, truncation=True).input_ids
    assert 64 < len(ids) <= 256 and "longer than the specified" not in capfd.readouterr().err


def test_every_name_that_servers_read_is_raised(trained: Callable[..., Any]) -> None:
    """vLLM takes the smallest of them."""
    folder, plan = trained()
    list(raise_limits(folder, plan))
    config = json.loads((folder / "config.json").read_text())
    assert {config[key] for key in (*CONFIG, "max_position_embeddings")} == {256}


def test_nothing_is_lowered_and_nothing_else_changes(trained: Callable[..., Any]) -> None:
    folder, plan = trained()
    edit(folder / "generation_config.json", max_length=5000, max_new_tokens=64)
    edit(folder / "tokenizer_config.json", model_max_length=10**30)
    edit(folder / "config.json", **dict.fromkeys(CONFIG, None), hidden_size=64)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert list(raise_limits(folder, plan)) == []
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_second_time_there_is_nothing_to_raise(trained: Callable[..., Any]) -> None:
    folder, plan = trained()
    list(raise_limits(folder, plan))
    assert list(raise_limits(folder, plan)) == []


def test_dynamic_ntk_keeps_the_window_that_its_growth_counts_from(
    trained: Callable[..., Any],
) -> None:
    folder, plan = trained(DynamicConfig(factor=4.0))
    list(raise_limits(folder, plan))
    config = json.loads((folder / "config.json").read_text())
    assert {config[key] for key in CONFIG} == {64}
    assert json.loads((folder / "generation_config.json").read_text())["max_length"] == 256
