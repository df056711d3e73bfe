"""Text settings are taken to the letter, from the command line and from the frozen file."""

from pathlib import Path

import pytest

from ropewalk.conf.artifacts.folders import MAX_RUN_NAME_BYTES
from ropewalk.conf.check import load, to_yaml
from ropewalk.conf.errors import ConfigError
from ropewalk.launch.config.compose import compose

LETTERS = [
    *("2026_11_28", "2026-11-28", "1e3", "0x10", "010", "1:30", "null", "true", "on", "Off", "nan"),
    *(
        "a=b",
        "a,b",
        "a b",
        " a ",
        "über",
        "日本",
        "a'b",
        'a"b',
        "[a]",
        "{a}",
        "a#b",
        "a #b",
        "a: b",
    ),
    *("*", "&a", "!x", "%x", "@x", "-", "--", "=", "a$b", "x" * MAX_RUN_NAME_BYTES, "~", "~x"),
]


def problem(*words: str) -> str:
    with pytest.raises(ConfigError) as error:
        compose(["recipe=demo", *words])
    (line,) = str(error.value).splitlines()
    return line


@pytest.mark.parametrize("text", LETTERS)
def test_text_is_taken_to_the_letter(tmp_path: Path, text: str) -> None:
    config = compose(
        ["recipe=demo", f"name={text}", f"model.revision={text}", f"model.gguf_file={text}"]
    )
    unset = None if text == "null" else text
    assert (config.name, config.model.revision, config.model.gguf_file) == (text, unset, unset)
    (tmp_path / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert load(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("path", ["~/x", "~", "/a,b", "./a=b", "a:b", "C:\\x", "/ü/é", "x/", "1e3"])
def test_a_path_is_taken_to_the_letter(path: str) -> None:
    words = [f"model.path={path}", f"runs_dir={path}", f"data.sources.stdlib.path={path}"]
    config = compose(["recipe=demo", *words])
    assert (config.model.path, config.runs_dir) == (path, path)
    assert config.data.sources["stdlib"].path == path


def test_items_of_lists_and_mappings_are_text_too() -> None:
    patterns = [r"layers\.[0-3]\.", "x{2,3}", "1e3", "a|b"]
    words = [f"train.optimizer.freeze=[{', '.join(patterns)}]"]
    words += ["train.optimizer.lr_groups=[{pattern:2026_11_28,lr_scale:2}]"]
    words += ["train.lora.rank=4", "train.lora.targets=[1e3,q_proj]"]
    train = compose(["recipe=demo", *words]).train
    assert train.optimizer.freeze == patterns
    assert train.optimizer.lr_groups[0].pattern == "2026_11_28"
    assert train.lora.targets == ["1e3", "q_proj"]
    phases = compose(["recipe=demo", "phases=[{name:1e3,train.steps:2},{}]"]).phases
    assert phases[0] == {"name": "1e3", "train.steps": 2}


@pytest.mark.parametrize(
    ("word", "start"),
    [
        (
            'name="a"',
            'name is "a"; text is taken to the letter, and the quotes would be part of it',
        ),
        ("name=a\nb", "name is 'a\\nb'; it must be a plain folder name, and it has a line break"),
        ("name=a/b", "name is 'a/b'; it must be a plain folder name, and it leads to another"),
        ("name=..", "name is '..'; it must be a plain folder name"),
        (
            f"name={'x' * 256}",
            f"name is '{'x' * 57}...'; it must be a plain folder name, and it has",
        ),
        (
            f"name={'ü' * 128}",
            f"name is '{'ü' * 57}...'; it must be a plain folder name, and it has",
        ),
        ("name=\x85", "name is '\\x85'; it must be text without control characters"),
        ("name=${HOME}", "name is ${HOME}; ${HOME} stands for a setting, and there is none such"),
        ("name=a${", "name is a${; ${ stands for a setting"),
        ("name=???", "name is ???; it must be a value"),
        ("model.path=", "model.path is empty; it must be a text"),
        ("train.steps=1e3", "train.steps is 1e3; it must be a whole number"),
        ("seed=010", "seed is 010; it must be a whole number"),
    ],
)
def test_what_cannot_be_taken_is_refused_with_its_rule(word: str, start: str) -> None:
    assert problem(word)[: len(start)] == start


def test_a_reference_is_another_setting_s_value() -> None:
    assert compose(["recipe=demo", "name=run-${seed}", "seed=7"]).name == "run-7"


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("train.stepps", "train.steps"),
        ("train.optimiser.lr", "train.optimizer"),
        ("train.warmup_step", "train.schedule.warmup_steps"),
        ("data.sources.stdlib.wieght", "data.sources.stdlib.weight"),
        ("data.sources.mine.pth", "data.sources.mine.path"),
        ("rope.beta_fst", "rope.beta_fast"),
        ("learning_rate", "train.optimizer.lr"),
        ("max_seq_length", "data.seq_len"),
        ("modle.path", "model"),
    ],
)
def test_a_wrong_key_has_the_nearest_one(key: str, nearest: str) -> None:
    assert problem(f"{key}=1").endswith(f"is not a setting; did you mean {nearest}?")


def test_a_source_of_the_recipe_can_be_left_out() -> None:
    config = compose(["recipe=demo", "~data.sources.repeat"])
    assert set(config.data.sources) == {"stdlib", "passkey"}
    assert "the recipe's sources are stdlib, repeat, passkey" in problem("~data.sources.nope")


def test_rope_none_drops_the_recipe_s_factor_but_not_the_user_s() -> None:
    assert compose(["recipe=demo", "rope=none"]).rope.factor == 1
    assert problem("rope=none", "rope.factor=8").startswith("rope.factor is 8.0; rope=none scales")


@pytest.mark.parametrize("key", ["eval.passkey_lengths", "train.steps", "name", "model.scratch"])
def test_a_control_character_does_not_break_the_line_of_a_refusal(key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        compose(["recipe=demo", f"{key}=a\x0bb\x1dc"])
    (line,) = str(refused.value).splitlines()
    assert line.startswith(f"{key} is 'a\\x0bb\\x1dc'; ")
