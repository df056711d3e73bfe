"""A phase continues where earlier phases stopped reading the same plan; no text repeats early."""

import json
from pathlib import Path

import pytest

from ropewalk.conf.check import to_yaml
from ropewalk.launch.config import phases
from ropewalk.launch.config.compose import compose
from ropewalk.train.checkpoint.previous_phase import sequences_consumed

# 4 steps of 2 sequences; then 3 steps of 4; then 2 steps of which the second reads 8
OVERRIDES = [
    "train.global_batch_tokens=4096",
    "phases=[{train.steps: 4}, {train.steps: 3, train.global_batch_tokens: 8192}, "
    "{train.steps: 2, train.batch_ramp: [[2, 16384]]}, {train.steps: 1}]",
]


@pytest.mark.parametrize(
    ("plans", "expected"),
    [
        ("aaaa", [0, 8, 20, 30]),
        ("abab", [0, 0, 8, 12]),
        ("abcd", [0, 0, 0, 0]),
        ("aabb", [0, 8, 0, 10]),
    ],
)
def test_sequences_that_earlier_phases_read_of_the_same_plan_are_counted(
    tmp_path: Path, plans: str, expected: list[int]
) -> None:
    chain = phases.phase_configs(compose(["recipe=demo", f"runs_dir={tmp_path}", *OVERRIDES]))
    for config, plan in zip(chain, plans, strict=True):
        folder = Path(config.runs_dir) / config.name / "data"
        folder.mkdir(parents=True)
        (folder.parent / "config.yaml").write_text(to_yaml(config))
        artifacts = {"plan": plan, "stores": {}, "heldout": 0.1}
        (folder / "where.json").write_text(json.dumps(artifacts))
    cache = tmp_path / "cache"
    consumed = [
        sequences_consumed(config, cache / "plans" / plan, cache)
        for config, plan in zip(chain, plans, strict=True)
    ]
    assert consumed == expected


def test_a_run_without_phases_starts_at_the_first_sequence(tmp_path: Path) -> None:
    assert sequences_consumed(compose(["recipe=demo"]), tmp_path / "plans" / "a", tmp_path) == 0
