"""`phases`: settings on top of the run's, checked for each phase; problems name their phase."""

from pathlib import Path

import pytest
from data_fixture import DataFixture

from ropewalk.conf import phases as rules
from ropewalk.conf.check import load, to_yaml
from ropewalk.conf.errors import ConfigError
from ropewalk.launch.config import phases
from ropewalk.launch.config.compose import compose
from ropewalk.launch.pipeline.stages import execute


def phase_configs(*overrides: str) -> list:
    return phases.phase_configs(compose(["recipe=demo", *overrides]))


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        compose(["recipe=demo", *overrides])
    return str(error.value).splitlines()


def test_without_phases_a_run_is_itself() -> None:
    (first,) = phase_configs()
    assert first == compose(["recipe=demo"]) and first.phase == 0
    assert rules.title(first) == "" and rules.previous_run_dir(first) is None


def test_each_phase_has_its_settings_on_top_of_the_run_s() -> None:
    short, long = phase_configs(
        "phases=[{name:short,data.seq_len:512,rope.factor:2},{train:{optimizer:{lr:1e-4},steps:7}}]"
    )
    assert (short.data.seq_len, short.rope.factor) == (512, 2)
    assert (short.train.optimizer.lr, short.train.steps) == (5e-4, 160)
    assert (long.data.seq_len, long.rope.factor) == (2048, 8)
    assert (long.train.optimizer.lr, long.train.steps) == (1e-4, 7)
    assert (short.data.sources, short.seed, short.eval) == (long.data.sources, long.seed, long.eval)


def test_the_last_phase_has_the_folder_of_the_run_and_starts_from_the_one_before() -> None:
    a, b, c = phase_configs("name=x", "runs_dir=r", "phases=[{name:a},{},{name:c}]")
    assert [(p.runs_dir, p.name) for p in (a, b, c)] == [
        ("r/x/phases", "1-a"),
        ("r/x/phases", "2"),
        ("r", "x"),
    ]
    assert [rules.previous_run_dir(p) for p in (a, b, c)] == [
        None,
        Path("r/x/phases/1-a"),
        Path("r/x/phases/2"),
    ]
    assert [rules.title(p) for p in (a, b, c)] == [
        "phase 1/3 (a): ",
        "phase 2/3: ",
        "phase 3/3 (c): ",
    ]


def test_a_phase_chooses_a_method_which_keeps_the_factor_that_was_set() -> None:
    first, two, three = phase_configs(
        "phases=[{rope:pi},{rope:ntk,rope.factor:16},{rope.method:abf,rope.rope_theta:5e5}]"
    )
    assert [(p.rope.method, p.rope.factor) for p in (first, two, three)] == [
        ("pi", 8),
        ("ntk", 16),
        ("abf", 8),
    ]
    assert three.rope.rope_theta == 5e5  # type: ignore[attr-defined]


def test_a_phase_adds_a_source_and_replaces_numbers_by_length() -> None:
    new = "data.sources.x.path:./x,data.sources.x.weight:1,data.length_weights:{1K-4K:2.0}"
    first, two = phase_configs('data.length_weights={"<4K": 1.0}', f"phases=[{{{new}}},{{}}]")
    assert (
        set(first.data.sources) - set(two.data.sources) == {"x"}
        and first.data.sources["x"].kind == "auto"
    )
    assert (first.data.length_weights, two.data.length_weights) == ({"1K-4K": 2.0}, {"<4K": 1.0})


def test_what_every_phase_sets_need_not_be_set_for_the_run() -> None:
    overrides = [
        "recipe=custom",
        "model.path=./m",
        "rope.factor=4",
        "data.sources.a.path=./a",
        "train.optimizer.lr=1e-3",
    ]
    config = compose([*overrides, "train.steps=2", "phases=[{data.seq_len:64},{data.seq_len:128}]"])
    assert [p.data.seq_len for p in phases.phase_configs(config)] == [64, 128]
    with pytest.raises(ConfigError) as error:
        compose([*overrides, "train.steps=2", "phases=[{data.seq_len:64},{}]"])
    assert str(error.value).startswith("phases[1].data.seq_len is not set; it is required")


@pytest.mark.parametrize(
    ("overrides", "starts"),
    [
        (
            ["phases=[{data.seq_len:1,data.min_piece:1},{}]"],
            ["phases[0].data.seq_len is 1; it must be at least 2"],
        ),
        (
            ["phases=[{},{train.optimizer.lr:-1,train.steps:-2}]"],
            ["phases[1].train.steps is -2; ", "phases[1].train.optimizer.lr is -1"],
        ),
        (
            ["phases=[{},{train.stepz:1}]"],
            ["phases[1].train.stepz is not a setting; did you mean train.steps?"],
        ),
        (
            ["phases=[{},{seed:1}]"],
            [
                "phases[1].seed is 1; a phase sets name, carry_optimizer, mixture and what begins "
                "with rope., data., train."
            ],
        ),
        (["phases=[{name:a/b}]"], ["phases[0].name is a/b; it must be a plain folder name"]),
        (
            ["phases=[{},{train.optimizer.lr:abc}]"],
            ["phases[1].train.optimizer.lr is abc; it must be a number; correct it"],
        ),
        (["phases=[{rope:abc},{}]"], ["phases[0].rope is abc; it must be one of none, pi, "]),
        (
            ["phases=[{data.sources.stdlib.wieght:1},{}]"],
            ["phases[0].data.sources.stdlib.wieght is not a setting; did you mean "],
        ),
        (["phases=[1]"], ["phases[0] is 1; it must be settings by key; "]),
        (["phases=[{},{}]", "eval.windows=0"], ["eval.windows is 0; "]),
        (
            ["phase=1"],
            ["phase is 1; it is written into the settings of each of `phases`; leave it out"],
        ),
    ],
)
def test_problems_name_their_phase_and_common_problems_appear_once(
    overrides: list[str], starts: list[str]
) -> None:
    lines = problems(*overrides)
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts


def test_frozen_settings_of_a_phase_are_read_back_equal(tmp_path: Path) -> None:
    configs = phase_configs("phases=[{name:short,rope:pi},{train.optimizer.lr:1e-5}]")
    for number, config in enumerate(configs, 1):
        (tmp_path / "config.yaml").write_text(to_yaml(config))
        assert load(tmp_path / "config.yaml") == config and config.phase == number


def test_a_tokenizer_trained_on_the_sources_is_the_same_in_all_phases(tmp_path: Path) -> None:
    def tokenizer(run_dir: Path) -> bytes:
        return (run_dir / "data" / "tokenizer" / "tokenizer.json").read_bytes()

    fixture, runs = DataFixture(tmp_path), f"runs_dir={tmp_path / 'runs'}"
    phases = f"phases=[{{}}, {{data.sources.notes.path: {tmp_path / 'notes'}}}]"
    run = execute(fixture.config(phases, runs, sources=("books",)), "data")
    assert run.previous_phase is not None
    first = tokenizer(run.previous_phase.folder)
    assert first == tokenizer(run.folder)
    both_sources = execute(fixture.config(runs, "name=both"), "data")
    assert tokenizer(both_sources.folder) != first
