"""Overrides -> one configuration; each mistake is one line, never a traceback."""

from pathlib import Path

import pytest

from ropewalk.conf.errors import ConfigError
from ropewalk.launch.config.compose import compose, config_dir_override
from ropewalk.launch.sweep.grid import sweep


def lines(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        compose(["recipe=demo", *overrides])
    return str(error.value).splitlines()


def test_overrides_win_over_the_recipe_and_the_last_over_the_first() -> None:
    config = compose(["recipe=demo", "train.steps=7", "train.steps=9", "rope=pi", "name=mine"])
    assert (config.train.steps, config.rope.method, config.name) == (9, "pi", "mine")
    assert (config.rope.factor, config.data.seq_len) == (8, 2048)


def test_new_source_needs_no_plus() -> None:
    overrides = ["data.sources.mine.path=./a b", "data.sources.mine.weight=0.5"]
    sources = compose(["recipe=demo", *overrides]).data.sources
    source = sources["mine"]
    assert (source.path, source.weight, source.kind) == ("./a b", 0.5, "auto")
    assert set(sources) == {"stdlib", "repeat", "passkey", "mine"}


@pytest.mark.parametrize(
    "value", ["*.py", "books[1]", "2024_01", "1e3", "a: b", "007", "@home", "yes", "x #1"]
)
def test_path_and_pattern_of_a_source_are_literal(value: str) -> None:
    overrides = [
        f"data.sources.mine.path={value}",
        f"data.sources.mine.pattern={value}",
        "data.sources.mine.weight=1",
    ]
    source = compose(["recipe=demo", *overrides]).data.sources["mine"]
    assert (source.path, source.pattern) == (value, value)


@pytest.mark.parametrize(
    ("overrides", "starts"),
    [
        (
            ["train.optimizer.lr=abc"],
            ["train.optimizer.lr is abc; it must be a number; e.g. train.optimizer.lr="],
        ),
        (["train.qqqq=1"], ["train.qqqq is not a setting; one of "]),
        (
            ["train.optimizer.lr=abc", "train.steps=1.5", "nope=2"],
            ["train.optimizer.lr is abc; ", "train.steps is 1.5; ", "nope is not a setting; "],
        ),
        (["rope=nope"], ["rope=nope: "]),
        (["train.optimizer.lr"], ["train.optimizer.lr is not followed by a value; "]),
        (["train.optimizer.lr="], ["train.optimizer.lr is empty; it must be a number; "]),
        (["train.optimizer.lr=[1"], ["train.optimizer.lr is [1; it must be a number; "]),
        (["train=3"], ["train is 3; it is a section of settings; "]),
        (["~train.optimizer.lr"], ["~train.optimizer.lr removes nothing; "]),
        (["train.optimizer.lr=${nope}"], ["train.optimizer.lr is ${nope}; ${nope} stands for"]),
    ],
)
def test_each_wrong_override_gives_one_line(overrides: list[str], starts: list[str]) -> None:
    error = lines(*overrides)
    assert [line[: len(start)] for line, start in zip(error, starts, strict=True)] == starts


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "rope.target_length=1000.5",
            "rope.target_length is 1000.5; it must be a whole number; e.g. rope.target_length=2048",
        ),
        (
            "train.optimizer.lr=abc",
            "train.optimizer.lr is abc; it must be a number; e.g. train.optimizer.lr=2.0",
        ),
        (
            "rope.truncate=maybe",
            "rope.truncate is maybe; it must be true or false; e.g. rope.truncate=true",
        ),
        (
            "train.optimizer.betas=[a,0.5]",
            "train.optimizer.betas[0] is a; it must be a number; correct it",
        ),
        (
            "data.sources.mine.weight=abc",
            "data.sources.mine.weight is abc; it must be a number; "
            "e.g. data.sources.mine.weight=2.0",
        ),
    ],
)
def test_value_of_a_wrong_type_is_reported_with_key_rule_and_way_out(
    override: str, line: str
) -> None:
    assert lines(override) == [line]


def test_consequences_of_a_wrong_override_are_not_reported() -> None:
    overrides = [
        "recipe=custom",
        "name=x",
        "model.path=./m",
        "data.seq_len=64",
        "data.sources.a.path=./a",
        "train.steps=1",
    ]
    with pytest.raises(ConfigError) as error:
        compose([*overrides, "train.optimizer.lr=-1", "rope.target_length=1000.5"])
    starts = ["rope.target_length is 1000.5; ", "train.optimizer.lr is -1.0; "]
    pairs = zip(str(error.value).splitlines(), starts, strict=True)
    assert [line[: len(start)] for line, start in pairs] == starts


def test_unknown_recipe_lists_the_real_ones() -> None:
    with pytest.raises(ConfigError) as error:
        compose(["recipe=nope"])
    (line,) = str(error.value).splitlines()
    assert all(name in line for name in ("recipe=nope", "base", "custom", "demo", "smollm2"))


def test_unknown_method_lists_the_real_ones() -> None:
    (line,) = lines("rope=nope")
    assert all(name in line for name in ("none", "ntk", "pi", "yarn"))
    assert "schema" not in line.split("Config search")[0]


@pytest.mark.parametrize(
    "override",
    [
        "rope=null",
        "schema=2",
        "recipe=null",
        "model.scratch.vocab_size=300",
        "model.scratch={vocab_size:300}",
    ],
)
def test_override_that_raises_within_hydra_gives_a_line(override: str) -> None:
    (*_, line) = lines(override)
    assert override.split("=")[0].split(".")[0] in line


def test_method_that_does_not_exist_with_an_unknown_key_gives_lines() -> None:
    assert any("nope" in line for line in lines("rope.method=nope", "+x=1"))


@pytest.mark.parametrize("value", ["[x", "{a", "'", "&", "%"])
def test_malformed_value_of_a_source_gives_a_line_or_is_used(value: str) -> None:
    overrides = [f"data.sources.m.path={value}", "data.sources.m.weight=1"]
    try:
        source = compose(["recipe=demo", *overrides]).data.sources["m"]
    except ConfigError as error:
        assert "data.sources.m.path" in str(error)
    else:
        assert source.path == value


def test_wrong_values_of_several_sources_are_all_reported() -> None:
    weights = ("data.sources.a.weight", "data.sources.b.weight")
    error = "\n".join(lines(*(f"{key}=abc" for key in weights), "train.optimizer.lr=-1"))
    assert all(key in error for key in (*weights, "train.optimizer.lr"))


def test_a_user_s_recipe_is_read_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text("# @package _global_\nname: mine\nseed: 42\n")
    overrides = ["model.path=./m", "rope.factor=2", "data.seq_len=64", "data.sources.a.path=./a"]
    overrides += ["train.steps=1", "train.optimizer.lr=0.1", config_dir_override(str(tmp_path))]
    config = compose(["recipe=mine", *overrides])
    assert (config.name, config.seed) == ("mine", 42)


def test_typo_in_a_user_s_recipe_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text("# @package _global_\ntrain: {stepps: 3}\n")
    with pytest.raises(ConfigError) as error:
        compose(["recipe=mine", config_dir_override(str(tmp_path))])
    assert "recipe/mine" in str(error.value) and "stepps" in str(error.value)


def test_folder_that_is_missing_is_refused() -> None:
    with pytest.raises(ConfigError, match="--config-dir is ./nowhere; it must be a folder"):
        config_dir_override("./nowhere")


def names(*overrides: str) -> list[str]:
    return [dict(o.split("=", 1) for o in run)["name"] for run in sweep(overrides)]


def test_sweep_names_each_run_by_its_swept_values() -> None:
    assert names("recipe=demo", "rope=pi,ntk,yarn") == ["demo-pi", "demo-ntk", "demo-yarn"]
    run_names = names("recipe=demo", "rope=pi,yarn", "rope.factor=2,4", "seed=1")
    assert run_names == ["demo-pi-2", "demo-pi-4", "demo-yarn-2", "demo-yarn-4"]


@pytest.mark.parametrize("key", ["rope@x", "+train.note", "++seed", "rope"])
def test_sweep_names_runs_by_a_value_whatever_its_key_looks_like(key: str) -> None:
    assert names("recipe=demo", f"{key}=1,2") == ["demo-1", "demo-2"]


def test_sweep_keeps_the_other_overrides_and_the_name() -> None:
    runs = sweep(["recipe=demo", "rope=pi,ntk", "data.sources.mine.path=./a,b", "name=mine"])
    assert [set(run) for run in runs] == [
        {"recipe=demo", f"rope={m}", "data.sources.mine.path=./a,b", f"name=mine-{m}"}
        for m in ("pi", "ntk")
    ]


def test_sweep_of_nothing_is_one_run() -> None:
    assert names("recipe=demo", "seed=3") == ["demo"]


def test_every_run_of_a_sweep_has_its_own_name() -> None:
    run_names = names("recipe=demo", "rope=pi,ntk", "name=a,b")
    assert len(set(run_names)) == 4


def test_every_run_of_a_sweep_composes() -> None:
    runs = sweep(["recipe=demo", "rope=pi,yarn", "train.optimizer.lr=1e-3,1e-4"])
    configs = [compose(run) for run in runs]
    assert [(c.rope.method, c.train.optimizer.lr) for c in configs] == [
        (method, lr) for method in ("pi", "yarn") for lr in (1e-3, 1e-4)
    ]
    assert len({c.name for c in configs}) == 4


def test_malformed_sweep_is_refused_in_a_line() -> None:
    with pytest.raises(ConfigError, match=r"train\.optimizer\.betas is \[0\.9; \] is missing"):
        sweep(["recipe=demo", "train.optimizer.betas=[0.9"])
