"""The lint of traced steps: every recipe has no finding, and each kind of fault has one."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from architectures import SMOLLM2_135M

from ropewalk.conf import recipe_card
from ropewalk.conf.schema import Config
from ropewalk.launch.config.compose import compose
from ropewalk.launch.recipes.bases import RECIPES, card_of, phases_on
from ropewalk.train.base import base_config, locate
from ropewalk.train.loss import chunk_tokens
from ropewalk.train.trace import lint, rules
from ropewalk.train.trace.child import traces_in_child
from ropewalk.train.trace.plan import StepPlan, StepTrace

WORLD = 2
OWN = ("base", "base_retrieval", "demo", "smollm2")


def model_of(name: str, config: Config, cache: Path) -> dict[str, Any]:
    if name == "smollm2":
        return SMOLLM2_135M
    if name == "base_retrieval":  # it starts from what recipe base trained
        config = compose(["recipe=base"])
    model: dict[str, Any] = base_config(locate(config.model, cache)).to_dict()
    return model


def plan_of(name: str, cache: Path, **train: Any) -> StepPlan:
    """Longer than a chunk of the loss, so that logits of all tokens would show."""
    config = compose([f"recipe={name}"])
    model = model_of(name, config, cache)
    tokens = 2 * max(config.data.seq_len, chunk_tokens(model["vocab_size"], "cuda")) + 2
    # of fp32, which the demo takes for CPUs, no GPU's kernel knows
    settings = asdict(config.train) | {"precision": "bf16"} | train
    return StepPlan(model, (tokens,), settings, world_size=WORLD)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StepTrace]:
    cache = tmp_path_factory.mktemp("cache")
    plans = {name: plan_of(name, cache) for name in OWN}
    zero3 = plan_of("smollm2", cache, zero_stage=3)
    memory = zero3.train["memory"] | {"zero_prefetch_bucket_size": 0}
    plans |= {
        "zero 3": zero3,
        "no prefetch": replace(zero3, train=zero3.train | {"memory": memory}),
    }
    results = traces_in_child(list(plans.values()))
    assert all(isinstance(result, StepTrace) for result in results), results
    return dict(zip(plans, results, strict=True))  # type: ignore[arg-type]


def card_plan(name: str, folder: Path) -> StepPlan:
    """A recipe of the field in its last phase, over the published config.json of its base.

    Two ranks stand for all that share a row.
    """
    config = phases_on(name, folder, f"cache_dir={folder.parent}/cache")[-1]
    model, sp_size = card_of(name).base.config, min(WORLD, config.train.sp_size)
    tokens = (2 * chunk_tokens(model["vocab_size"], "cuda") + 2) * sp_size
    settings = asdict(config.train) | {"sp_size": sp_size}
    return StepPlan(model, (tokens,), settings, world_size=WORLD)


def test_no_recipe_of_ours_has_a_finding(traces: dict[str, StepTrace]) -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == {*OWN, *recipe_card.names(), "custom"}
    lines = {name: lint.findings(trace) for name, trace in traces.items() if name != "no prefetch"}
    assert not any(lines.values()), lines


def test_no_recipe_of_the_field_has_a_finding(tmp_path: Path) -> None:
    plans = {name: card_plan(name, tmp_path / name / "base") for name in recipe_card.names()}
    for sp_size in {plan.train["sp_size"] for plan in plans.values()}:
        group = {name: plan for name, plan in plans.items() if plan.train["sp_size"] == sp_size}
        for name, trace in zip(group, traces_in_child(list(group.values())), strict=True):
            assert isinstance(trace, StepTrace), (name, trace)
            assert not lint.findings(trace), name


def test_weights_that_are_gathered_late_are_told(traces: dict[str, StepTrace]) -> None:
    (line,) = lint.findings(traces["no prefetch"])
    assert "when they are needed at once, and 0 times ahead" in line


def test_waits_and_large_tensors_are_told(traces: dict[str, StepTrace]) -> None:
    trace = replace(traces["demo"], waits={"item at a.py:1": 2}, large={"mm at b.py:2": 3})
    assert lint.findings(trace) == [
        "the host waits 2 times a step: item at a.py:1",
        "a tensor of S x S or S x V elements, 3 times a step: mm at b.py:2",
    ]


@pytest.mark.parametrize(
    ("shape", "is_large"),
    [
        ((1000, 1000), True),
        ((1, 1, 1000, 1000), True),
        ((1000, 500), True),
        ((500, 1000), True),
        ((3000, 500), True),
        ((4000, 400), False),
        ((100, 500), False),
        ((999, 999), False),
        ((1000, 2000), False),
        ((2000, 2000), False),
        ((2000, 500), False),
    ],
)
def test_what_is_large(shape: tuple[int, ...], is_large: bool) -> None:
    """Of 1,000 tokens, 500 words, and weights of 2,000."""
    assert rules.is_large(shape, 1000, 500, {2000, 500}) is is_large
