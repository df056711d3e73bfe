"""check() reports all problems at once and refuses unknown keys; a frozen file reads back equal."""

from pathlib import Path

import pytest
import yaml

from ropewalk.conf.check import load, to_yaml
from ropewalk.conf.errors import REFUSED, ConfigError
from ropewalk.conf.rope_methods import ROPE_METHODS
from ropewalk.launch.config.compose import compose

GOOD = ["recipe=demo"]


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        compose([*GOOD, *overrides])
    assert error.value.exit_code == REFUSED == 2
    return str(error.value).splitlines()


def test_all_problems_are_reported_at_once() -> None:
    lines = problems(
        "train.optimizer.lr=-1",
        "rope.factor=0.5",
        "data.heldout_share=2",
        "eval.windows=0",
        "+train.foo=1",
        "+bar=2",
    )
    starts = [
        "train.foo is not",
        "bar is not",
        "rope.factor is",
        "data.heldout_share is",
        "train.optimizer.lr is",
        "eval.windows is",
    ]
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts


@pytest.mark.parametrize(
    ("override", "start"),
    [
        (
            "+train.learning_rate=1",
            "train.learning_rate is not a setting; did you mean train.optimizer.lr?",
        ),
        ("+train.qqq=1", "train.qqq is not a setting; one of attention, "),
        (
            "+train.warmup_step=1",
            "train.warmup_step is not a setting; did you mean train.schedule.warmup_steps?",
        ),
        ("+sed=1", "sed is not a setting; did you mean seed?"),
        ("+rope.beta_fastt=3", "rope.beta_fastt is not a setting; did you mean rope.beta_fast?"),
        ("+a.b.c=1", "a is not a setting; one of "),
    ],
)
def test_unknown_key_with_a_plus_is_refused(override: str, start: str) -> None:
    assert [line[: len(start)] for line in problems(override)] == [start]


def test_unknown_key_of_a_source_is_refused() -> None:
    (line,) = problems("data.sources.stdlib.wieght=1")
    assert "wieght" in line and "data.sources.stdlib" in line


def test_option_of_another_method_is_refused() -> None:
    (line,) = problems("rope=ntk", "rope.beta_fast=3")
    assert "beta_fast" in line and "NTKConfig" in line


def test_missing_settings_are_all_named() -> None:
    with pytest.raises(ConfigError) as error:
        compose(["recipe=custom"])
    lines = str(error.value).splitlines()
    for key in ("data.seq_len", "train.optimizer.lr", "train.steps"):
        assert f"{key} is not set; it is required; add {key}=VALUE" in lines


def test_missing_settings_do_not_hide_the_other_problems() -> None:
    with pytest.raises(ConfigError) as error:
        compose(["recipe=custom", "rope.factor=0.5"])
    message = str(error.value)
    assert all(key in message for key in ("data.seq_len", "rope.factor is 0.5", "model.path"))


def test_missing_settings_do_not_hide_problems_of_calibrate_and_export() -> None:
    with pytest.raises(ConfigError) as error:
        compose(["recipe=custom", "calibrate.population=3", "export.gguf=q4"])
    message = str(error.value)
    assert "data.seq_len is not set" in message
    assert "calibrate.population is 3; it must be at least 4" in message
    assert "export.gguf is q4; it must be one of f32, f16, bf16, off" in message


def test_all_wrong_types_are_reported() -> None:
    lines = problems("train.optimizer.lr=abc", "train.steps=1.5", "data.document_mask=perhaps")
    keys = ("train.optimizer.lr", "train.steps", "data.document_mask")
    assert [key in line for key, line in zip(keys, lines, strict=True)] == [True] * 3


def test_wrong_type_does_not_hide_a_wrong_value() -> None:
    message = "\n".join(problems("train.optimizer.lr=abc", "rope.factor=0.1"))
    assert "train.optimizer.lr" in message and "rope.factor is 0.1" in message


def frozen(tmp_path: Path, text: str) -> Path:
    (tmp_path / "config.yaml").write_text(text)
    return tmp_path / "config.yaml"


@pytest.mark.parametrize("method", ROPE_METHODS)
def test_frozen_file_reads_back_as_itself(tmp_path: Path, method: str) -> None:
    more = {
        "none": ["rope.factor=1"],
        "longrope": ["rope.long_factor=[1.0,2.0]"],
        "table": ["rope.path=./t.json"],
    }
    config = compose([*GOOD, f"rope={method}", *more.get(method, [])])
    again = load(frozen(tmp_path, to_yaml(config)))
    assert again == config
    assert type(again.rope) is ROPE_METHODS[method] and again.rope.method == method


def test_frozen_file_is_plain_yaml() -> None:
    values = yaml.safe_load(to_yaml(compose([*GOOD, "train.optimizer.lr=1e-5", "seed=7"])))
    assert (values["train"]["optimizer"]["lr"], values["seed"], values["schema"]) == (1e-5, 7, 1)
    assert values["data"]["sources"]["passkey"]["filler"] == "stdlib"


def test_frozen_method_settings_survive(tmp_path: Path) -> None:
    config = compose(
        [*GOOD, "rope.beta_fast=16", "rope.attention_factor=1.1", "rope.truncate=false"]
    )
    assert load(frozen(tmp_path, to_yaml(config))).rope == config.rope


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1, 2]",
        "rope: {method: nope}",
        "rope: null",
        "name: x",
        "rope: {method: yarn}\ntrain: 7",
        "a: [",
        "a: *b",
    ],
)
def test_a_file_in_another_form_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        load(frozen(tmp_path, text))


def test_frozen_file_with_an_unknown_or_wrong_setting_is_refused(tmp_path: Path) -> None:
    text = to_yaml(compose(GOOD))
    with pytest.raises(ConfigError, match="stepps"):
        load(frozen(tmp_path, text.replace("  steps:", "  stepps:")))
    with pytest.raises(ConfigError, match=r"^schema is 9; it must be one of 1"):
        load(frozen(tmp_path, text.replace("schema: 1", "schema: 9")))


def test_missing_frozen_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.yaml is not readable"):
        load(tmp_path / "config.yaml")


def test_frozen_file_with_former_names_is_answered_with_the_present_ones(tmp_path: Path) -> None:
    values = yaml.safe_load(to_yaml(compose(GOOD)))
    train = values["train"]
    train["seeing"], train["lr"] = train.pop("metrics"), train["optimizer"].pop("lr")
    values["data"]["tokens"] = values["data"].pop("total_tokens")
    with pytest.raises(ConfigError) as error:
        load(frozen(tmp_path, yaml.safe_dump(values)))
    assert sorted(str(error.value).splitlines()) == [
        "config.yaml: data.tokens is now data.total_tokens",
        "config.yaml: train.lr is now train.optimizer.lr",
        "config.yaml: train.seeing is now train.metrics",
    ]
