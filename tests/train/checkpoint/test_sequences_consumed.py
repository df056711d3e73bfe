"""A phase reads on where the phases before it left the same plan, so that no text comes twice before the rest came once."""

import json
from pathlib import Path

import pytest

from ropewalk.conf.check import to_yaml
from ropewalk.launch.config import phases
from ropewalk.launch.config.compose import compose
from ropewalk.train.checkpoint.previous_phase import sequences_consumed

# 4 steps of 2 sequences; then 3 steps of 4; then 2 steps of which the second reads 8
WORDS = [
    "train.global_batch_tokens=4096",
    "phases=[{train.steps: 4}, {train.steps: 3, train.global_batch_tokens: 8192}, "
    "{train.steps: 2, train.batch_ramp: [[2, 16384]]}, {train.steps: 1}]",
]


@pytest.mark.parametrize(
    ("plans", "wanted"),
    [
        ("aaaa", [0, 8, 20, 30]),
        ("abab", [0, 0, 8, 12]),
        ("abcd", [0, 0, 0, 0]),
        ("aabb", [0, 8, 0, 10]),
    ],
)
def test_sequences_of_the_same_plan_that_were_read_before(
    tmp_path: Path, plans: str, wanted: list[int]
) -> None:
    chain = phases.phase_configs(compose(["recipe=demo", f"runs_dir={tmp_path}", *WORDS]))
    for config, plan in zip(chain, plans, strict=True):
        folder = Path(config.runs_dir) / config.name / "data"
        folder.mkdir(parents=True)
        (folder.parent / "config.yaml").write_text(to_yaml(config))
        where = {"plan": plan, "stores": {}, "heldout": 0.1}
        (folder / "where.json").write_text(json.dumps(where))
    cache = tmp_path / "cache"
    found = [
        sequences_consumed(c, cache / "plans" / plan, cache)
        for c, plan in zip(chain, plans, strict=True)
    ]
    assert found == wanted


def test_a_run_without_phases_starts_at_the_first_place(tmp_path: Path) -> None:
    assert sequences_consumed(compose(["recipe=demo"]), tmp_path / "plans" / "a", tmp_path) == 0
