"""The line for each broken rule of a setting; the settings in a fingerprint."""

import copy
import dataclasses
import re
from typing import Any

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf
from train_settings import train_config

from ropewalk.conf.check import check
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.model import ScratchConfig
from ropewalk.conf.rules import content, problems
from ropewalk.conf.schema import Config
from ropewalk.launch.config.compose import compose
from ropewalk.launch.config.hydra import compose_node, split_overrides

GOOD = (
    "recipe=custom",
    "model.path=./model",
    "rope.factor=4",
    "data.seq_len=1024",
    "data.sources.mine.path=./documents",
    "train.steps=10",
    "train.optimizer.lr=1e-4",
)

WRONG = {
    "name=": r"^name is ''; it must be a plain folder name",
    "name=a/b": r"^name is 'a/b'",
    "name=.hidden": r"^name is '\.hidden'",
    "schema=2": r"^schema is 2; this version reads 1",
    "model.path=null": r"^model\.path is not set",
    "rope.factor=0.5": r"^rope\.factor is 0\.5; it must be a finite number of at least 1",
    "rope.factor=nan": r"^rope\.factor is nan",
    "rope.factor=inf": r"^rope\.factor is inf",
    "rope.factor=1": r"^rope\.factor is 1; rope=yarn with factor 1 scales nothing",
    "rope.original_max_position_embeddings=0": (
        r"^rope\.original_max_position_embeddings is 0; it must be at least 1"
    ),
    "rope.beta_fast=1": r"^rope\.beta_fast is 1\.0; it must be above rope\.beta_slow 1\.0",
    "rope.beta_slow=0": r"^rope\.beta_fast is 32\.0; it must be above rope\.beta_slow 0\.0",
    "rope.attention_factor=0": r"^rope\.attention_factor is 0\.0; it must be above 0",
    "rope.attention_factor=nan": r"^rope\.attention_factor is nan",
    "rope.mscale=1": (
        r"^rope\.mscale is 1\.0; engines differ when one of mscale and mscale_all_dim is alone"
    ),
    "rope.target_length=0": r"^rope\.target_length is 0; it must be at least 1 token",
    "calibrate.searcher=grid": (
        r"^calibrate\.searcher is grid; it must be one of ramp, longrope, both"
    ),
    "calibrate.max_forward_passes=0": r"^calibrate\.max_forward_passes is 0; it must be at least 1",
    "calibrate.population=3": r"^calibrate\.population is 3; it must be at least 4",
    "calibrate.inside_weight=1": (
        r"^calibrate\.inside_weight is 1\.0; it must be a finite number of at least 0 and below 1"
    ),
    "calibrate.length=1": r"^calibrate\.length is 1; it must be at least 2",
    "calibrate.methods=[yarn,dynamic]": (
        r"^calibrate\.methods has dynamic; each must be one of pi, ntk"
    ),
    "calibrate.methods=[pi]": (
        r"^calibrate\.methods has no yarn; the gain is counted from its defaults"
    ),
    "data.seq_len=1": r"^data\.seq_len is 1; it must be at least 2",
    "data.seq_len=0": r"^data\.seq_len is 0; it must be at least 2",
    "data.heldout_share=1": r"^data\.heldout_share is 1\.0; it must be at least 0 and below 1",
    "data.heldout_share=-0.1": r"^data\.heldout_share is -0\.1",
    "data.heldout_share=nan": r"^data\.heldout_share is nan",
    "data.positions=reset": r"^data\.positions is reset; it must be restart or continue",
    "data.total_tokens=1023": (
        r"^data\.total_tokens is 1023; it must hold one sequence of data\.seq_len 1024"
    ),
    "data.min_piece=0": r"^data\.min_piece is 0; it must be between 1 and data\.seq_len 1024",
    "data.min_piece=1025": r"^data\.min_piece is 1025",
    "data.packer=first_fit": (
        r"^data\.packer is first_fit; it must be one of window_fill, best_fit, concat, single"
    ),
    "data.overlong=keep": (
        r"^data\.overlong is keep; it must be one of split, truncate, drop, error"
    ),
    "data.begin=": r"^data\.begin is empty; it must be a token of the tokenizer, bos or eos",
    "data.end=": r"^data\.end is empty",
    "data.pose.chunks=1": r"^data\.pose\.chunks is 1; positions skip between at least 2",
    "data.pose.target_length=1024": (
        r"^data\.pose\.target_length is 1024; it must be above data\.seq_len 1024"
    ),
    "data.sources.mine.piece_len=31": (
        r"^data\.sources\.mine\.piece_len is 31; it must be between data\.min_piece 32 and data"
    ),
    "data.sources.mine.piece_len=1025": (
        r"^data\.sources\.mine\.piece_len is 1025; .* data\.seq_len 1024"
    ),
    "data.sources.mine.kind=pdf": (
        r"^data\.sources\.mine\.kind is pdf; it must be one of auto, tree"
    ),
    "data.sources.mine.weight=-1": r"^data\.sources\.mine\.weight is -1\.0",
    "data.sources.mine.weight=nan": r"^data\.sources\.mine\.weight is nan",
    "data.sources.mine.weight=0": r"^data\.sources weights add up to 0",
    "data.sources.mine.template=no column": (
        r"^data\.sources\.mine\.template is 'no column'; it must name columns in plain"
    ),
    "data.sources.other.kind=text": r"^data\.sources\.other\.path is not set",
    "data.sources.keys.kind=passkey": (
        r"^data\.sources\.keys\.filler is None; it must name another source; one of mine"
    ),
    "train.steps=-1": r"^train\.steps is -1; it must be at least 0",
    "train.optimizer.lr=0": r"^train\.optimizer\.lr is 0\.0; it must be a finite number above 0",
    "train.optimizer.lr=-1": r"^train\.optimizer\.lr is -1\.0",
    "train.optimizer.lr=nan": r"^train\.optimizer\.lr is nan",
    "train.schedule.warmup_steps=-1": r"^train\.schedule\.warmup_steps is -1",
    "train.checkpoint.interval_steps=-1": r"^train\.checkpoint\.interval_steps is -1",
    "train.checkpoint.keep_last=0": r"^train\.checkpoint\.keep_last is 0; it must be at least 1",
    "train.prefetch=-1": r"^train\.prefetch is -1; it must be at least 0",
    "train.micro_batch_size=0": r"^train\.micro_batch_size is 0; it must be at least 1",
    "train.sp_size=0": r"^train\.sp_size is 0; it must be at least 1",
    "train.launcher.ranks_per_node=0": r"^train\.launcher\.ranks_per_node is 0",
    "train.memory.zero_hpz_size=1": r"^train\.memory\.zero_hpz_size is 1; it must be at least 2",
    "train.memory.zero_hpz_size=2": (
        r"^train\.memory\.zero_hpz_size is 2; it needs train\.zero_stage 3, not 1"
    ),
    "train.optimizer.weight_decay=-0.1": r"^train\.optimizer\.weight_decay is -0\.1",
    "train.optimizer.gradient_clipping=inf": r"^train\.optimizer\.gradient_clipping is inf",
    "train.schedule.min_lr_ratio=-1": r"^train\.schedule\.min_lr_ratio is -1\.0",
    "train.optimizer.eps=nan": r"^train\.optimizer\.eps is nan",
    "train.optimizer.betas=[0.9]": r"^train\.optimizer\.betas is \[0\.9\]; it must be two numbers",
    "train.optimizer.betas=[0.9,1.0]": (
        r"^train\.optimizer\.betas\[1\] is 1\.0; it must be a finite number of at least 0 and "
        r"below 1"
    ),
    "train.memory.offload_params=true": (
        r"^train\.memory\.offload_params is True; it needs train\.zero_stage 3, not 1"
    ),
    "train.zero_stage=0": r"^train\.zero_stage is 0; with bf16",
    "train.zero_stage=4": r"^train\.zero_stage is 4; it must be one of 0, 1, 2, 3",
    "train.schedule.kind=step": (
        r"^train\.schedule\.kind is step; it must be one of constant, linear, cosine, "
        r"inverse_sqrt, wsd"
    ),
    "train.schedule.decay_shape=step": (
        r"^train\.schedule\.decay_shape is step; it must be one of linear, sqrt, cosine"
    ),
    "train.schedule.decay_steps=5": (
        r"^train\.schedule\.decay_steps is 5; it belongs to train\.schedule\.kind wsd, not "
        r"cosine; unset it"
    ),
    "train.optimizer.layer_lr_decay=0": (
        r"^train\.optimizer\.layer_lr_decay is 0\.0; it must be a finite number above 0 and at "
        r"most 1"
    ),
    "train.optimizer.lr_groups=[{pattern: '(', lr_scale: 0}]": (
        r"^train\.optimizer\.lr_groups\[0\]\.lr_scale is 0\.0; it must be a finite number above 0"
    ),
    "train.optimizer.freeze=['(']": (
        r"^train\.optimizer\.freeze\[0\] is \(; it must be a regular expression"
    ),
    "train.optimizer.trainable=['*']": (
        r"^train\.optimizer\.trainable\[0\] is \*; it must be a regular expression"
    ),
    "train.lora.rank=-1": r"^train\.lora\.rank is -1; it must be at least 0; 0 is off",
    "train.lora.norms=true": (
        r"^train\.lora\.norms is True; it belongs to LoRA, and train\.lora\.rank is 0; set "
        r"train\.lora\.rank=8"
    ),
    "train={memory: {tile_mlp_tokens: 64}, lora: {rank: 8, dropout: 0.1}}": (
        r"^train\.memory\.tile_mlp_tokens is 64; each tile is recomputed in the backward pass"
    ),
    "train.lora={rank: 8, alpha: 0}": (
        r"^train\.lora\.alpha is 0\.0; it must be a finite number above 0; unset it for twice the "
        r"rank"
    ),
    "train.lora={rank: 8, dropout: 1}": (
        r"^train\.lora\.dropout is 1\.0; it must be a finite number of at least 0 and below 1"
    ),
    "train.lora={rank: 8, targets: []}": (
        r"^train\.lora\.targets is \[\]; it must be attention, all-linear or names"
    ),
    "train.lora={rank: 8, targets: 3}": (
        r"^train\.lora\.targets is 3; it must be attention, all-linear or names"
    ),
    "train.lora={rank: 7, init: orthogonal}": (
        r"^train\.lora\.rank is 7; with train\.lora\.init=orthogonal it must be even; set 8"
    ),
    "train.lora={rank: 8, init: pissa}": (
        r"^train\.lora\.init is pissa; it must be one of default, gaussian, orthogonal"
    ),
    "train.lora={rank: 8, quantize: int8}": (
        r"^train\.lora\.quantize is int8; it must be one of none, nf4"
    ),
    "train.precision=fp16": r"^train\.precision is fp16; it must be one of bf16, fp32",
    "train.attention.kernel=eager": (
        r"^train\.attention\.kernel is eager; it must be one of auto, flash, flash3, flash4, "
        r"varlen, sdpa"
    ),
    "train.attention.s2_group=255": (
        r"^train\.attention\.s2_group is 255; .*it must be even and at least 2"
    ),
    "train.attention.s2_group=4096": (
        r"^train\.attention\.s2_group is 4096; a group must be shorter than data\.seq_len 1024; "
        r".* takes 256"
    ),
    "train.metrics.wandb=yes_please": (
        r"^train\.metrics\.wandb is yes_please; it must be one of auto"
    ),
    "train.global_batch_tokens=1500": (
        r"^train\.global_batch_tokens is 1500; .*1 x data\.seq_len 1024 = 1024; try 1024"
    ),
    "train.global_batch_tokens=0": r"^train\.global_batch_tokens is 0; .*; try 1024",
    "eval.windows=0": r"^eval\.windows is 0; it must be at least 1",
    "eval.windows_per_document=0": r"^eval\.windows_per_document is 0",
    "eval.batch_tokens=0": r"^eval\.batch_tokens is 0",
    "eval.passkey_tries=-1": r"^eval\.passkey_tries is -1; it must be at least 0",
    "eval.length=1": r"^eval\.length is 1; it must be at least 2",
    "eval.context_gain_tokens=1": r"^eval\.context_gain_tokens is 1; it must be at least 2",
    "eval.passkey_depths=[0.5,1.5]": (
        r"^eval\.passkey_depths\[1\] is 1\.5; it must be a finite number of at least 0 and at "
        r"most 1"
    ),
    "eval.precision=fp16": r"^eval\.precision is fp16; it must be one of fp32, bf16",
}


LATE = {
    "rope.method=pi": r"^rope\.method is pi",
    "rope.method=nope": r"^rope\.method is nope",
    "rope.beta_fast=inf": r"^rope\.beta_fast is inf",
    "rope.attention_factor=inf": r"^rope\.attention_factor is inf",
    "eval.passkey_lengths=[-5]": r"^eval\.passkey_lengths\[0\] is -5; it must be at least 2",
}


@pytest.fixture(scope="module")
def good() -> DictConfig:
    """GOOD, composed once, because composing takes a tenth of a second."""
    overrides, sources = split_overrides(GOOD)
    composed = compose_node(overrides)
    OmegaConf.set_struct(composed, False)
    return OmegaConf.merge(composed, sources)  # type: ignore[return-value]


def lines_of(good: DictConfig, override: str) -> list[str]:
    changed = copy.deepcopy(good)
    key, value = override.split("=", 1)
    if key.startswith("data.sources."):
        changed = OmegaConf.merge(changed, OmegaConf.from_dotlist([override]))  # type: ignore[assignment]
    else:
        OmegaConf.update(changed, key, yaml.safe_load(value) if value else "", force_add=True)
    with pytest.raises(ConfigError) as error:
        check(changed)
    return str(error.value).splitlines()


def test_good_settings_pass(good: DictConfig) -> None:
    assert check(good) == compose(GOOD)
    assert check(good).global_batch_tokens == 1024


@pytest.mark.parametrize("override", WRONG)
def test_wrong_setting_gives_its_line_with_rule_and_way_out(
    good: DictConfig, override: str
) -> None:
    lines = lines_of(good, override)
    assert [line for line in lines if re.search(WRONG[override], line)], lines
    assert len(lines) <= 3
    assert all(line.count(";") >= 1 for line in lines)


@pytest.mark.parametrize("override", LATE)
def test_setting_that_would_fail_late_gives_its_line(good: DictConfig, override: str) -> None:
    (line,) = lines_of(good, override)
    assert re.search(LATE[override], line)


def test_scaling_without_a_method_is_refused(good: DictConfig) -> None:
    with pytest.raises(ConfigError, match=r"^rope\.factor is 4\.0; rope=none scales nothing"):
        compose([*GOOD, "rope=none"])


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ("template={a}", "text_key=b"),
            r"text_key is b; data\.sources\.mine\.template says what the text is; unset one",
        ),
        (
            ("kind=text", "text_key=b"),
            r"text_key is 'b'; it is read by kind jsonl, parquet, arrow, hub, and this is text",
        ),
        (("kind=tree", "id_key=b"), r"id_key is 'b'; .* this is tree"),
        (
            ("kind=jsonl", "split=train"),
            r"split is 'train'; it is read by kind arrow, hub, and this is jsonl",
        ),
        (
            ("kind=arrow", "revision=main"),
            r"revision is 'main'; it is read by kind hub, and this is arrow",
        ),
        (("kind=hub", "pattern=*.x"), r"pattern is '\*\.x'; .* this is hub"),
        (
            ("kind=hub", "path=hf://datasets/a/b"),
            r"path is hf://datasets/a/b; kind hub takes a name such as org/name",
        ),
    ],
)
def test_setting_of_another_kind_of_source_is_refused(
    overrides: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.sources\.mine\.{expected}"):
        compose([*GOOD, *(f"data.sources.mine.{word}" for word in overrides)])


def test_settings_of_a_source_keep_their_text() -> None:
    overrides = (
        "kind=hub",
        "path=org/name",
        "config=2024_01",
        "split=train",
        "revision=007",
        "template={a}\n{{b}}",
        "id_key=yes",
    )
    source = compose([*GOOD, *(f"data.sources.mine.{word}" for word in overrides)]).data.sources[
        "mine"
    ]
    values = [f"{key}={getattr(source, key)}" for key, _ in (o.split("=") for o in overrides)]
    assert values == list(overrides)


def test_weights_are_for_all_sources_or_none() -> None:
    with pytest.raises(
        ConfigError,
        match=r"data\.sources\.mine\.weight is not set; either every source has a weight",
    ):
        compose([*GOOD, "data.sources.other.path=./x", "data.sources.other.weight=1"])


def test_synthetic_source_without_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="data.sources has a synthetic source and no weights"):
        compose([*GOOD, "data.sources.keys.kind=repeat", "data.sources.keys.filler=mine"])


def test_begin_and_end_must_leave_room_for_text() -> None:
    overrides = ["data.min_piece=1", "data.begin=bos", "data.end=eos"]
    message = (
        r"^data\.begin is bos; a piece of mine has 2 tokens, and data\.begin and data\.end leave "
        r"no room"
    )
    with pytest.raises(ConfigError, match=message):
        compose([*GOOD, *overrides, "data.sources.mine.piece_len=2"])
    assert (
        compose([*GOOD, *overrides, "data.sources.mine.piece_len=3"]).data.sources["mine"].piece_len
        == 3
    )


@pytest.mark.parametrize(
    ("mask", "positions", "expected"),
    [("true", "continue", "restart"), ("false", "restart", "continue")],
)
def test_pose_needs_positions_that_count_through_each_attention_span(
    mask: str, positions: str, expected: str
) -> None:
    overrides = [*GOOD, "data.pose.target_length=4096", f"data.document_mask={mask}"]
    message = (
        rf"^data\.positions is {positions}; with data\.pose and data\.document_mask={mask} .* set "
        rf"data\.positions={expected}$"
    )
    with pytest.raises(ConfigError, match=message):
        compose([*overrides, f"data.positions={positions}"])
    assert compose([*overrides, f"data.positions={expected}"]).data.pose.target_length == 4096


def test_filler_must_not_be_synthetic_itself() -> None:
    overrides = [
        f"data.sources.{n}.{k}" for n in ("one", "two") for k in ("kind=repeat", "weight=1")
    ]
    with pytest.raises(
        ConfigError,
        match=r"data\.sources\.one\.filler is two; it must name another source; one of mine",
    ):
        compose(
            [
                *GOOD,
                *overrides,
                "data.sources.mine.weight=1",
                "data.sources.one.filler=two",
                "data.sources.two.filler=mine",
            ]
        )


def test_no_source_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^data\.sources is empty"):
        compose([word for word in GOOD if "sources" not in word])


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


def test_content_leaves_out_settings_without_effect_on_the_output() -> None:
    small = train_config(steps=1, optimizer__lr=0.1)
    other = train_config(steps=1, optimizer__lr=0.1, metrics__wandb="off", micro_batch_size=4)
    assert content(small) == content(other)
    assert content(small) != content(train_config(steps=2, optimizer__lr=0.1))
    assert "metrics" not in content(small) and content(small)["optimizer"]["betas"] == [0.9, 0.95]


def test_if_set_is_in_the_fingerprint_only_off_its_default() -> None:
    default = content(train_config(steps=1, optimizer__lr=0.1))["optimizer"]
    frozen = content(train_config(steps=1, optimizer__lr=0.1, optimizer__freeze=["norm"]))
    assert "freeze" not in default and frozen["optimizer"] == {**default, "freeze": ["norm"]}


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


def test_settings_that_affect_the_output_are_in_the_fingerprint() -> None:
    fingerprinted = content(train_config(steps=1, optimizer__lr=0.1))
    assert {"steps", "global_batch_tokens", "precision"} <= set(fingerprinted)
    assert {"lr", "weight_decay", "betas", "eps"} <= set(fingerprinted["optimizer"])
    assert "kind" in fingerprinted["schedule"]


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


METHOD_WRONG = {
    ("pi", ""): r"^rope\.factor is not set; rope=pi needs a factor or a target_length",
    (
        "dynamic",
        "rope.factor=2 rope.alpha=0.5",
    ): r"^rope\.alpha is 0\.5; it must be a finite number of at least 1",
    (
        "ntk_by_parts",
        "rope.factor=2 rope.beta_fast=1",
    ): r"^rope\.beta_fast is 1\.0; it must be above rope\.beta_slow",
    (
        "llama3",
        "rope.factor=2 rope.high_freq_factor=1",
    ): r"^rope\.high_freq_factor is 1\.0; it must be above",
    ("longrope", "rope.factor=2"): r"^rope\.long_factor is not set; it must be d/2 divisors",
    (
        "longrope",
        "rope.factor=2 rope.long_factor=[1.0,-1.0]",
    ): r"^rope\.long_factor has a number that is not above 0",
    (
        "longrope",
        "rope.factor=2 rope.long_factor=[1.0] rope.attention_factor=nan",
    ): r"^rope\.attention_factor is nan",
    (
        "abf",
        "rope.factor=2 rope.rope_theta=1",
    ): r"^rope\.rope_theta is 1\.0; it must be a finite number above 1",
    ("table", ""): r"^rope\.path is not set; rope=table reads its frequencies from a file",
    ("yarn", "rope.factor=2 rope.target_length=5000 rope.original_max_position_embeddings=1000"): (
        r"^rope\.factor is 2 and rope\.target_length is 5000; .* leads to 2000"
    ),
    ("yarn", "rope.target_length=1000 rope.original_max_position_embeddings=1000"): (
        r"^rope\.target_length is 1000; it must be longer than "
        r"rope\.original_max_position_embeddings 1000"
    ),
    (
        "yarn",
        "rope.factor=2 rope.mscale=1 rope.mscale_all_dim=1 rope.attention_factor=1",
    ): r"it would be said twice",
    ("none", "rope.target_length=5000"): r"^rope\.target_length is 5000; rope=none scales nothing",
}


@pytest.mark.parametrize(("method", "overrides"), METHOD_WRONG, ids=lambda x: x or "nothing")
def test_wrong_setting_of_a_method_gives_its_line(method: str, overrides: str) -> None:
    good = [word for word in GOOD if not word.startswith("rope.")]
    with pytest.raises(ConfigError) as error:
        compose([*good, f"rope={method}", *overrides.split()])
    (line,) = str(error.value).splitlines()
    assert re.search(METHOD_WRONG[method, overrides], line) and line.count(";") >= 1
