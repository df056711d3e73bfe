"""The line for each broken rule of a setting."""

import dataclasses
import re
from typing import Any

import pytest
from changed_settings import (
    GOOD,
    assert_line_with_rule_and_way_out,
    changed,
    composed,
    with_key,
)

from ropewalk.conf.check import check
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.model import ScratchConfig
from ropewalk.conf.rules import problems
from ropewalk.conf.schema import Config
from ropewalk.launch.config.compose import compose

WRONG = {
    "name=": "''; it must be a plain folder name",
    "name=a/b": "'a/b'",
    "name=.hidden": "'.hidden'",
    "schema=2": "2; it must be one of 1; use the version that wrote the file",
    "model.path=null": "not set",
    "calibrate.searcher=grid": "grid; it must be one of ramp, longrope, both",
    "calibrate.max_forward_passes=0": "0; it must be at least 1",
    "calibrate.population=3": "3; it must be at least 4",
    "calibrate.inside_weight=1": "1.0; it must be a finite number of at least 0 and below 1",
    "calibrate.length=1": "1; it must be at least 2",
    "train.steps=-1": "-1; it must be at least 0",
    "train.optimizer.lr=0": "0.0; it must be a finite number above 0",
    "train.optimizer.lr=-1": "-1.0",
    "train.optimizer.lr=nan": "nan",
    "train.schedule.warmup_steps=-1": "-1",
    "train.checkpoint.interval_steps=-1": "-1",
    "train.checkpoint.keep_last=0": "0; it must be at least 1",
    "train.prefetch=-1": "-1; it must be at least 0",
    "train.micro_batch_size=0": "0; it must be at least 1",
    "train.sp_size=0": "0; it must be at least 1",
    "train.launcher.ranks_per_node=0": "0",
    "train.memory.zero_hpz_size=1": "1; it must be at least 2",
    "train.memory.zero_hpz_size=2": "2; it needs train.zero_stage 3, not 1",
    "train.optimizer.weight_decay=-0.1": "-0.1",
    "train.optimizer.gradient_clipping=inf": "inf",
    "train.schedule.min_lr_ratio=-1": "-1.0",
    "train.optimizer.eps=nan": "nan",
    "train.optimizer.betas=[0.9]": "[0.9]; it must be two numbers",
    "train.memory.offload_params=true": "True; it needs train.zero_stage 3, not 1",
    "train.zero_stage=0": "0; with bf16",
    "train.zero_stage=4": "4; it must be one of 0, 1, 2, 3",
    "train.schedule.kind=step": (
        "step; it must be one of constant, linear, cosine, inverse_sqrt, wsd"
    ),
    "train.schedule.decay_shape=step": "step; it must be one of linear, sqrt, cosine",
    "train.schedule.decay_steps=5": (
        "5; it belongs to train.schedule.kind wsd, not cosine; unset it"
    ),
    "train.optimizer.layer_lr_decay=0": "0.0; it must be a finite number above 0 and at most 1",
    "train.lora.rank=-1": "-1; it must be at least 0; 0 is off",
    "train.lora.norms=true": (
        "True; it belongs to LoRA, and train.lora.rank is 0; set train.lora.rank=8"
    ),
    "train.precision=fp16": "fp16; it must be one of bf16, fp32",
    "train.attention.kernel=eager": (
        "eager; it must be one of auto, flash, flash3, flash4, varlen, sdpa"
    ),
    "train.attention.s2_group=255": (
        "255; it is shifted by half of it, so it must be even and at least 2"
    ),
    "train.attention.s2_group=4096": (
        "4096; a group must be shorter than data.seq_len 1024; lower it, the paper takes 256"
    ),
    "train.metrics.wandb=yes_please": "yes_please; it must be one of auto",
    "train.global_batch_tokens=1500": (
        "1500; it must be a multiple of train.micro_batch_size 1 x data.seq_len 1024 = "
        "1024; try 1024"
    ),
    "train.global_batch_tokens=0": (
        "0; it must be a multiple of train.micro_batch_size 1 x data.seq_len 1024 = 1024; try 1024"
    ),
    "eval.windows=0": "0; it must be at least 1",
    "eval.windows_per_document=0": "0",
    "eval.batch_tokens=0": "0",
    "eval.passkey_tries=-1": "-1; it must be at least 0",
    "eval.length=1": "1; it must be at least 2",
    "eval.context_gain_tokens=1": "1; it must be at least 2",
    "eval.precision=fp16": "fp16; it must be one of fp32, bf16",
}
"""Override -> how the line goes on after `KEY is `."""
OTHER_KEY = {
    "calibrate.methods=[yarn,dynamic]": (
        "calibrate.methods[1] is dynamic; it must be one of pi, ntk"
    ),
    "calibrate.methods=[pi]": (
        "calibrate.methods has no yarn; the gain is counted from its defaults"
    ),
    "train.optimizer.betas=[0.9,1.0]": (
        "train.optimizer.betas[1] is 1.0; it must be a finite number of at least 0 and below 1"
    ),
    "train.optimizer.lr_groups=[{pattern: '(', lr_scale: 0}]": (
        "train.optimizer.lr_groups[0].lr_scale is 0.0; it must be a finite number above 0"
    ),
    "train.optimizer.freeze=['(']": (
        "train.optimizer.freeze[0] is (; it must be a regular expression"
    ),
    "train.optimizer.trainable=['*']": (
        "train.optimizer.trainable[0] is *; it must be a regular expression"
    ),
    "train={memory: {tile_mlp_tokens: 64}, lora: {rank: 8, dropout: 0.1}}": (
        "train.memory.tile_mlp_tokens is 64; each tile is recomputed in the backward pass"
    ),
    "train.lora={rank: 8, alpha: 0}": (
        "train.lora.alpha is 0.0; it must be a finite number above 0; unset it for twice the rank"
    ),
    "train.lora={rank: 8, dropout: 1}": (
        "train.lora.dropout is 1.0; it must be a finite number of at least 0 and below 1"
    ),
    "train.lora={rank: 8, targets: []}": (
        "train.lora.targets is []; it must be attention, all-linear or names"
    ),
    "train.lora={rank: 8, targets: 3}": (
        "train.lora.targets is 3; it must be attention, all-linear or names"
    ),
    "train.lora={rank: 7, init: orthogonal}": (
        "train.lora.rank is 7; with train.lora.init=orthogonal it must be even; set 8"
    ),
    "train.lora={rank: 8, init: pissa}": (
        "train.lora.init is pissa; it must be one of default, gaussian, orthogonal"
    ),
    "train.lora={rank: 8, quantize: int8}": (
        "train.lora.quantize is int8; it must be one of none, nf4"
    ),
    "train={zero_stage: 3, lora: {rank: 8, quantize: nf4}}": (
        "train.lora.quantize is nf4; 4-bit weights cannot be partitioned by ZeRO 3"
    ),
    "eval.passkey_depths=[0.5,1.5]": (
        "eval.passkey_depths[1] is 1.5; it must be a finite number of at least 0 and at most 1"
    ),
    "eval.passkey_lengths=[-5]": "eval.passkey_lengths[0] is -5; it must be at least 2",
}
"""Override -> the start of its line, which is about another key."""


@pytest.mark.parametrize(("override", "start"), [*with_key(WRONG), *OTHER_KEY.items()])
def test_wrong_setting_gives_its_line_with_rule_and_way_out(override: str, start: str) -> None:
    assert_line_with_rule_and_way_out(override, start)


@pytest.mark.parametrize(
    "override",
    [
        "train={zero_stage: 0, precision: fp32}",
        "train={zero_stage: 2, lora: {rank: 8, quantize: nf4}}",
    ],
)
def test_a_setting_at_the_border_of_its_rule_passes(override: str) -> None:
    check(changed(override))


def test_good_settings_pass() -> None:
    config = check(composed())
    assert config == compose(GOOD) and config.global_batch_tokens == 1024


SCRATCH: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("vocab_size", 0),
        ("vocab_size", 259),
        ("hidden_size", 0),
        ("hidden_size", 36),
        ("num_hidden_layers", 0),
        ("num_attention_heads", 0),
        ("num_attention_heads", 3),
        ("num_key_value_heads", 3),
        ("num_key_value_heads", 0),
        ("max_position_embeddings", 0),
        ("intermediate_size", 0),
        ("rope_theta", 1.0),
        ("rope_theta", -5.0),
    ],
)
def test_scratch_model_that_cannot_be_built_is_refused(key: str, value: Any) -> None:
    assert list(problems(ScratchConfig(**SCRATCH), "model.scratch.")) == []
    message = "\n".join(problems(ScratchConfig(**{**SCRATCH, key: value}), "model.scratch."))
    assert key in message and str(value) in message


def test_scratch_and_path_together_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"model\.path is x; a model from model\.scratch has no path"
    ):
        compose(["recipe=base", "model.path=x"])


def test_the_decay_of_wsd_must_fit_after_the_warm_up() -> None:
    overrides = [*GOOD, "train.schedule.kind=wsd", "train.schedule.warmup_steps=4"]
    with pytest.raises(
        ConfigError,
        match=(
            r"^train\.schedule\.decay_steps is 7; it must be between 1 and what "
            r"train\.schedule\.warmup_steps 4 leaves"
        ),
    ):
        compose([*overrides, "train.schedule.decay_steps=7"])
    assert compose([*overrides, "train.schedule.decay_steps=6"]).train.schedule.decay_steps == 6


def test_learning_rates_by_name_come_from_the_command_line() -> None:
    overrides = [
        *GOOD,
        "train.optimizer.lr_groups=[{pattern: lora_B, lr_scale: 16}]",
        "train.optimizer.freeze=['layers\\.0']",
    ]
    train = compose(overrides).train
    assert (train.optimizer.lr_groups[0].pattern, train.optimizer.lr_groups[0].lr_scale) == (
        "lora_B",
        16.0,
    )
    assert train.optimizer.freeze == ["layers\\.0"]


@pytest.mark.parametrize(
    ("word", "names"), [("all-linear", ["all-linear"]), ("[q_proj,v_proj]", ["q_proj", "v_proj"])]
)
def test_an_adapter_comes_from_the_command_line(word: str, names: list[str]) -> None:
    lora = compose([*GOOD, "train.lora.rank=16", f"train.lora.targets={word}"]).train.lora
    assert (lora.rank, lora.names) == (16, names)


def test_fields_that_scripts_read_exist() -> None:
    config = compose(GOOD)
    for path in [
        "name",
        "seed",
        "cache_dir",
        "runs_dir",
        "model.path",
        "rope.factor",
        "rope.original_max_position_embeddings",
        "data.seq_len",
        "train.steps",
        "train.sp_size",
        "train.zero_stage",
    ]:
        section: Any = config
        for part in path.split("."):
            assert part in {f.name for f in dataclasses.fields(section)}
            section = getattr(section, part)
    assert isinstance(config, Config)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rope.target_length=4096.5", "rope.target_length is 4096.5; it must be a whole number; "),
        ("rope.factor=x", "rope.factor is x; it must be a number; "),
    ],
)
def test_wrong_type_gives_one_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        compose([*GOOD, override])
