"""`phases.*.KEY=VALUE` reaches what a phase sets; a phase's mixture replaces the run's."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from ropewalk import conf
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.launch.config import phases
from ropewalk.launch.config.compose import compose, config_dir_override

PHASES = [
    "{name: short, rope.factor: 8, data.seq_len: 64, train.steps: 100, rope: ntk}",
    "{name: wide, rope.factor: 32, train: {steps: 200, optimizer: {lr: 2.0e-3}}}",
    '{name: long, data.length_weights: {">1K": 2.0}}',
]
RUN = ["recipe=custom", "model.path=./m", "rope=abf", "mixture=fu", "data.seq_len=512"]
RUN += ["data.sources.a.path=./a", "rope.factor=64", "train.steps=500", "train.optimizer.lr=1e-3"]
WORDS = [*RUN, f"phases=[{', '.join(PHASES)}]"]
RECIPE = """\
# @package _global_
defaults: [{override /rope: abf}]
name: mine
model: {path: ./m}
data: {seq_len: 512, sources: {a: {path: ./a}}}
rope: {factor: 64}
train: {steps: 500, optimizer: {lr: 1.0e-3}}
phases: [{train.steps: 100}, {train: {steps: 200}}, {}]
"""


def composed(*words: str) -> list[Config]:
    return phases.phase_configs(compose(words))


def problems(*words: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        compose(words)
    return str(error.value).splitlines()


def test_a_star_reaches_every_phase_whatever_it_sets() -> None:
    before = composed(*WORDS)
    shrunk = composed(*WORDS, "phases.*.train.steps=2", "phases.*.data.seq_len=32")
    assert [c.train.steps for c in before] == [100, 200, 500]
    assert [c.train.steps for c in shrunk] == [2, 2, 2]
    assert [c.data.seq_len for c in shrunk] == [32, 32, 32]
    for long, short in zip(before, shrunk, strict=True):  # and nothing else
        short.train.steps, short.data.seq_len = long.train.steps, long.data.seq_len
        short.phases = long.phases
        assert short == long


def test_a_name_or_a_number_reaches_one_phase() -> None:
    set_ = ["phases.short.data.seq_len=32", "phases[2].data.seq_len=128"]
    assert [c.data.seq_len for c in composed(*WORDS, *set_)] == [32, 512, 128]
    methods = composed(*WORDS, "phases.short.rope=pi", "phases.long.rope.method=yarn")
    assert [c.rope.method for c in methods] == ["pi", "abf", "yarn"]
    carried = compose([*WORDS, "phases.wide.carry_optimizer=true"])
    assert [phase.get("carry_optimizer") for phase in carried.phases] == [None, True, None]


def test_a_mapping_by_length_is_replaced_in_a_phase() -> None:
    configs = composed(*WORDS, 'phases.long.data.length_weights={"<1K": 0.5}')
    weights = [c.data.length_weights for c in configs]
    assert weights == [{"<4K": 0.1}, {"<4K": 0.1}, {"<1K": 0.5}]


@pytest.mark.parametrize(
    ("word", "start"),
    [
        ("phases.x.train.steps=2", "phases.x.train.steps sets nothing; its phases are short, "),
        ("phases[3].train.steps=2", "phases[3].train.steps sets nothing; its phases are short, "),
        ("phases.*.train.stepz=2", "phases.*.train.stepz is not a setting; did you mean train.st"),
        ("phases.*.train.steps=x", "phases.*.train.steps is x; it must be a whole number"),
        ("phases.*.train.steps", "phases.*.train.steps is not followed by a value"),
        ("phases.*.seed=2", "phases.*.seed is 2; phases differ in what begins with rope., data."),
        ("phases.*.name=x", "phases.*.name is x; phases differ in what begins with"),
        ("phases.*.carry_optimizer=x", "phases.*.carry_optimizer is x; it must be true or false"),
        ("phases.*.mixture=nope", "mixture=nope: there is no mixture of that name"),
        ("phases.*.rope=nope", "rope is nope; it must be one of none, pi"),
        ("phases.*.data.sources.b=null", "data.sources.b is null; the sources are a; name one"),
        ("phases.*.train.steps=-1", "train.steps is -1; it must be at least 0"),
    ],
)
def test_a_word_that_sets_nothing_is_refused(word: str, start: str) -> None:
    lines = problems(*WORDS, word)
    assert len(lines) == 1 and lines[0].startswith(start), lines


def test_without_phases_the_run_itself_is_named() -> None:
    (line,) = problems("recipe=demo", "phases.*.train.steps=2")
    assert line.endswith("the run has no phases; set train.steps")


def test_a_setting_that_every_phase_sets_is_refused_and_that_some_set_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = problems(*RUN, "phases=[{train.steps: 1}, {train: {steps: 2}}]")
    assert line.startswith("train.steps is 500; every phase sets it, so this changes nothing")
    assert "'phases.*.train.steps=500'" in line
    two = (
        WORDS[-1]
        .replace("{name: wide", "{rope: pi, name: wide")
        .replace("{name: long", "{rope: pi")
    )
    (line,) = problems(*WORDS[:-1], two)
    assert line.startswith("rope is abf; every phase sets it") and "'phases.*.rope=abf'" in line
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text(RECIPE)
    recipe = ["recipe=mine", config_dir_override(str(tmp_path))]
    capsys.readouterr()
    assert [c.train.steps for c in composed(*recipe, "train.steps=7")] == [100, 200, 7]
    assert "train.steps=7 does not reach phases[0], phases[1]" in capsys.readouterr().err
    composed(*recipe, "train.zero_stage=1")
    assert capsys.readouterr().err == ""


SHARED = ("fineweb_edu", "fineweb", "stackexchange", "wikipedia", "tulu", "arxiv")
SHARED += ("openwebmath", "textbooks")
PROLONG = ["recipe=custom", "model.path=./m", "rope=abf", "rope.factor=8", "data.seq_len=65536"]
PROLONG += ["train.optimizer.lr=1e-5", "train.steps=2", "mixture=prolong_64k"]
PROLONG += [f"data.sources.{n}.path=./{n}" for n in (*SHARED, "repositories", "books")]
LONG = [f"data.sources.{n}.path: ./{n[:5]}" for n in ("repositories_512k", "repositories_64k")]
LONG += [f"data.sources.{n}.path: ./{n[:5]}" for n in ("books_512k", "books_64k")]


def preset(name: str) -> dict:
    return yaml.safe_load((Path(conf.__path__[0]) / "mixture" / f"{name}.yaml").read_text())


def test_a_phases_mixture_replaces_that_of_the_run() -> None:
    """ProLong's second phase: the sources and numbers of its own file, none of the first."""
    second = ", ".join(["{name: long", "mixture: prolong_512k", "data.seq_len: 524288", *LONG])
    first, two = composed(*PROLONG, f"phases=[{{name: short}},{second}}}]")
    for config, name in ((first, "prolong_64k"), (two, "prolong_512k")):
        written = preset(name)["sources"]
        assert set(config.data.sources) == set(written) and config.data.mixture == name
        for source, values in written.items():
            made = config.data.sources[source]
            assert {key: getattr(made, key) for key in values} == values
    assert two.data.sources["fineweb"].path == "./fineweb"


def test_a_phases_mixture_unsets_what_the_runs_preset_set() -> None:
    first, two, three = composed(
        *WORDS, "phases.wide.mixture=olmo3", "phases.short.mixture=uniform"
    )
    assert (first.data.mixture, first.data.length_weights) == ("uniform", {})
    assert (two.data.length_weights, two.data.buckets) == ({}, {"<8K": 0.66, ">=8K": 0.34})
    assert (three.data.mixture, three.data.length_weights) == ("fu", {">1K": 2.0})


def test_the_values_of_rows_are_replaced_in_a_phase_and_not_added_to() -> None:
    run = [*RUN, "data.sources.a.where={meta.set: [b, c]}", "data.begin=[45147,29]"]
    first, two = composed(*run, "phases=[{data.sources.a.where: {meta.lang: en}}, {}]")
    assert first.data.sources["a"].where == {"meta.lang": "en"}
    assert two.data.sources["a"].where == {"meta.set": ["b", "c"]}
    assert two.data.begin == [45147, 29]


def test_a_phase_leaves_a_source_out() -> None:
    more = ["data.sources.b.path=./b", "phases.wide.data.sources.a=null"]
    assert [list(c.data.sources) for c in composed(*WORDS, *more)] == [
        ["a", "b"],
        ["b"],
        ["a", "b"],
    ]


def test_the_command_of_the_docs_reaches_the_phases() -> None:
    page = (Path(conf.__path__[0]).parent / "docs" / "training.md").read_text()
    (line,) = re.findall(r"^ropewalk run (.*phases\.\*\..*)$", page, re.M)
    first, two = composed(*shlex.split(line))
    assert (first.train.steps, two.train.steps, two.data.seq_len) == (2, 2, 1024)
