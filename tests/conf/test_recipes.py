"""Every recipe that is shipped composes, passes its check, and reads back from its frozen form."""

from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest

from ropewalk.conf import recipe_card
from ropewalk.conf.check import load, to_yaml
from ropewalk.conf.eval import EvalConfig
from ropewalk.conf.rope_methods import ROPE_METHODS
from ropewalk.conf.schema import Config
from ropewalk.launch.config.compose import compose

CONF = Path(str(files("ropewalk.conf")))
RECIPES = ["base", "base_retrieval", "custom", "demo", "smollm2"]
"""Ours; the field's, each with a card, are held by tests/launch/recipes."""
METHODS = sorted(p.stem for p in (CONF / "rope").glob("*.yaml"))
NEEDED = ["model.path=./model", "rope.factor=4", "data.seq_len=64", "data.sources.a.path=./a"]
MIXTURES = sorted(p.stem for p in (CONF / "mixture").glob("*.yaml"))
SWEEPS = ["demo_methods", "methods", "search"]
SUITES = ["claim", "progress", "publish", "smoke"]
MORE = {"longrope": ["rope.long_factor=[1.0,2.0]"], "table": ["rope.path=./t.json"]}
NEEDED += ["train.steps=1", "train.optimizer.lr=1e-4"]


def recipe(name: str, *words: str) -> Config:
    return compose([f"recipe={name}", *(NEEDED if name == "custom" else []), *words])


def test_all_yaml_files_are_known() -> None:
    every = sorted(p.stem for p in (CONF / "recipe").glob("*.yaml"))
    assert every == sorted([*RECIPES, *recipe_card.names()])
    assert sorted(ROPE_METHODS) == METHODS
    assert MIXTURES == ["fu", "olmo3", "prolong_512k", "prolong_64k", "ultralong", "uniform"]
    assert sorted(p.stem for p in (CONF / "suite").glob("*.yaml")) == SUITES
    launchers = sorted(p.stem for p in (CONF / "launch").glob("*.yaml"))
    assert launchers == ["external", "kubernetes", "local", "skypilot", "slurm", "torchrun"]
    assert sorted(p.stem for p in (CONF / "sweep").glob("*.yaml")) == SWEEPS
    groups = {path.parent.name for path in CONF.rglob("*.yaml")} - {"conf", "recipe", "card"}
    assert groups == {"rope", "mixture", "suite", "hardware", "launch", "cluster", "sweep"}


def test_progress_is_what_is_measured_without_a_suite() -> None:
    assert recipe("custom", "suite=progress").eval == recipe("custom").eval == EvalConfig()


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_stands_over_the_recipe_and_below_the_command_line(name: str) -> None:
    alone = recipe("custom", f"suite={name}").eval
    assert recipe("demo", f"suite={name}").eval.windows == alone.windows
    assert recipe("demo", f"suite={name}", "eval.windows=7").eval.windows == 7


def test_each_suite_measures_more_than_the_one_before() -> None:
    sizes = [recipe("custom", f"suite={s}").eval for s in ("smoke", "progress", "claim", "publish")]
    for smaller, larger in pairwise(sizes):
        assert set(smaller.tasks) <= set(larger.tasks)
        assert smaller.windows < larger.windows and smaller.passkey_tries < larger.passkey_tries


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_passes_its_check_and_names_its_run(name: str) -> None:
    assert recipe(name).name == name.replace("_", "-")


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("method", METHODS)
def test_recipe_with_each_method_reads_back_as_itself(
    tmp_path: Path, name: str, method: str
) -> None:
    config = recipe(
        name, f"rope={method}", f"rope.factor={1 if method == 'none' else 8}", *MORE.get(method, [])
    )
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert type(config.rope) is ROPE_METHODS[method]
    assert load(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_can_be_shortened_from_the_command_line(name: str) -> None:
    assert recipe(name, "train.steps=3", "seed=5", "name=mine").train.steps == 3


def test_demo_is_held_out_as_its_base_was() -> None:
    """Eval of the demo reads what its base has not seen: the same share, by the same hash, of
    the same source."""
    demo, base = recipe("demo"), recipe("base")
    assert demo.data.heldout_share == base.data.heldout_share
    assert demo.data.sources["stdlib"].path == base.data.sources["stdlib"].path
    assert base.model.scratch is not None
    assert demo.data.seq_len == 8 * base.model.scratch.max_position_embeddings


@pytest.mark.parametrize("name", [r for r in RECIPES if r != "custom"])
def test_new_window_holds_the_training_sequences(name: str) -> None:
    config = recipe(name)
    window = {"base": 256, "base_retrieval": 256, "demo": 256 * 8, "smollm2": 8192 * 2}[name]
    assert config.data.seq_len <= window
    factor = config.rope.factor or 1
    assert round(window / factor) * factor == window
