"""A good configuration, and the problems of one changed setting in it."""

import copy
from collections.abc import Mapping
from functools import cache

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from ropewalk.conf.check import check
from ropewalk.conf.errors import ConfigError
from ropewalk.launch.config.compose import unchecked

GOOD = (
    "recipe=custom",
    "model.path=./model",
    "rope.factor=4",
    "data.seq_len=1024",
    "data.sources.mine.path=./documents",
    "train.steps=10",
    "train.optimizer.lr=1e-4",
)


@cache
def composed() -> DictConfig:
    """GOOD, composed once, because composing takes a tenth of a second."""
    return unchecked(GOOD)


def changed(override: str) -> DictConfig:
    """GOOD with one setting changed, unchecked."""
    node = copy.deepcopy(composed())
    key, value = override.split("=", 1)
    if key.startswith("data.sources."):
        return OmegaConf.merge(node, OmegaConf.from_dotlist([override]))  # type: ignore[return-value]
    OmegaConf.update(node, key, yaml.safe_load(value) if value else "", force_add=True)
    return node


def problem_lines(override: str) -> list[str]:
    """The lines of the error for GOOD with one setting changed."""
    with pytest.raises(ConfigError) as error:
        check(changed(override))
    return str(error.value).splitlines()


def with_key(expected: Mapping[str, str]) -> list[tuple[str, str]]:
    """Each override `KEY=VALUE` with the start of its line, `KEY is ` and the expected text."""
    return [
        (override, f"{override.partition('=')[0]} is {text}") for override, text in expected.items()
    ]


def assert_line_with_rule_and_way_out(override: str, start: str) -> None:
    """The override gives a line that begins with `start`; each line has its rule and way out."""
    lines = problem_lines(override)
    assert any(line.startswith(start) for line in lines), lines
    assert len(lines) <= 3
    assert all(";" in line for line in lines)
