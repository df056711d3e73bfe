"""The line for each broken rule of a RoPE method's settings."""

import re

import pytest
from changed_settings import GOOD, changed, problem_lines, with_key

from ropewalk.conf.check import check
from ropewalk.conf.errors import ConfigError
from ropewalk.launch.config.compose import compose

WRONG = {
    "rope.factor=0.5": "0.5; it must be a finite number of at least 1",
    "rope.factor=nan": "nan",
    "rope.factor=inf": "inf",
    "rope.factor=1": "1; rope=yarn with factor 1 scales nothing",
    "rope.original_max_position_embeddings=0": "0; it must be at least 1",
    "rope.beta_fast=1": "1.0; it must be above rope.beta_slow 1.0",
    "rope.beta_slow=0": "0.0; it must be a finite number above 0",
    "rope.attention_factor=0": "0.0; it must be a finite number above 0",
    "rope.attention_factor=nan": "nan",
    "rope.mscale=1": "1.0; engines differ when one of mscale and mscale_all_dim is alone",
    "rope.target_length=0": "0; it must be at least 1",
    "rope.method=pi": "pi",
    "rope.method=nope": "nope",
    "rope.beta_fast=inf": "inf",
    "rope.attention_factor=inf": "inf",
}
"""Override -> how the line goes on after `KEY is `."""


@pytest.mark.parametrize(("override", "start"), with_key(WRONG))
def test_wrong_setting_gives_one_line_with_rule_and_way_out(override: str, start: str) -> None:
    (line,) = problem_lines(override)
    assert line.startswith(start) and ";" in line


@pytest.mark.parametrize(
    "override",
    [
        "rope.factor=1.01",
        "rope.original_max_position_embeddings=1",
        "rope={factor: null, target_length: 1}",
        "rope={factor: null, target_length: 9, original_max_position_embeddings: 8}",
    ],
)
def test_a_length_at_its_lowest_passes(override: str) -> None:
    check(changed(override))


def test_scaling_without_a_method_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^rope\.factor is 4\.0; rope=none scales nothing"):
        compose([*GOOD, "rope=none"])


METHOD_WRONG = {
    ("pi", ""): r"^rope\.factor is not set; rope=pi needs a factor or a target_length",
    (
        "dynamic",
        "rope.factor=2 rope.alpha=0.5",
    ): r"^rope\.alpha is 0\.5; it must be a finite number of at least 1",
    (
        "ntk_by_parts",
        "rope.factor=2 rope.beta_fast=1",
    ): r"^rope\.beta_fast is 1\.0; it must be above rope\.beta_slow",
    (
        "llama3",
        "rope.factor=2 rope.high_freq_factor=1",
    ): r"^rope\.high_freq_factor is 1\.0; it must be above",
    ("longrope", "rope.factor=2"): r"^rope\.long_factor is not set; it must be d/2 divisors",
    (
        "longrope",
        "rope.factor=2 rope.long_factor=[1.0,-1.0]",
    ): r"^rope\.long_factor\[1\] is -1\.0; it must be a finite number above 0",
    (
        "longrope",
        "rope.factor=2 rope.long_factor=[1.0] rope.attention_factor=nan",
    ): r"^rope\.attention_factor is nan",
    (
        "abf",
        "rope.factor=2 rope.rope_theta=1",
    ): r"^rope\.rope_theta is 1\.0; it must be a finite number above 1",
    ("table", ""): r"^rope\.path is not set; rope=table reads its frequencies from a file",
    ("yarn", "rope.factor=2 rope.target_length=5000 rope.original_max_position_embeddings=1000"): (
        r"^rope\.factor is 2 and rope\.target_length is 5000; .* leads to 2000"
    ),
    ("yarn", "rope.target_length=1000 rope.original_max_position_embeddings=1000"): (
        r"^rope\.target_length is 1000; it must be longer than "
        r"rope\.original_max_position_embeddings 1000"
    ),
    (
        "yarn",
        "rope.factor=2 rope.mscale=1 rope.mscale_all_dim=1 rope.attention_factor=1",
    ): r"^rope\.attention_factor is 1\.0; rope\.mscale sets it too",
    ("none", "rope.target_length=5000"): r"^rope\.target_length is 5000; rope=none scales nothing",
}


@pytest.mark.parametrize(("method", "overrides"), METHOD_WRONG, ids=lambda x: x or "nothing")
def test_wrong_setting_of_a_method_gives_its_line(method: str, overrides: str) -> None:
    good = [word for word in GOOD if not word.startswith("rope.")]
    with pytest.raises(ConfigError) as error:
        compose([*good, f"rope={method}", *overrides.split()])
    (line,) = str(error.value).splitlines()
    assert re.search(METHOD_WRONG[method, overrides], line) and line.count(";") >= 1
