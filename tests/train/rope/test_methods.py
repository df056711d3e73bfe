"""Frequencies against two oracles: transformers' own functions, and the papers' equations written out here.

The sweep includes the far corner (theta 1e4, original window 131,072), where a ramp clamped at d/2-1 goes wrong by 66%.
"""

import itertools
import math
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from ropewalk.conf.schema import NTKConfig, PIConfig, RopeConfig, YarnConfig
from ropewalk.train.rope import plan
from ropewalk.train.rope.methods import METHODS, Table

KINDS: dict[str, type[RopeConfig]] = {"none": RopeConfig, "pi": PIConfig, "ntk": NTKConfig, "yarn": YarnConfig}
GRID = list(itertools.product((1e4, 5e5, 1e7), (32, 64, 128), (256, 8192, 131_072), (1.5, 8.0, 64.0)))
VARIANTS: list[dict[str, Any]] = [
    {"beta_fast": 16.0, "beta_slow": 2.0},
    {"beta_fast": 64.0},
    {"beta_slow": 0.25},
    {"attention_factor": 1.0},
    {"attention_factor": 1.25},
    {"truncate": False},
    {"truncate": False, "beta_fast": 8.0, "beta_slow": 4.0},
]


def settings(method: str, factor: float, **extra: Any) -> RopeConfig:
    return KINDS[method](factor=1.0 if method == "none" else factor, **extra)


def ours(config: RopeConfig, dim: int, theta: float, original: int) -> Table:
    return METHODS[config.method].table(config, dim, theta, original)


def llama(dim: int, original: int, factor: float, parameters: dict[str, Any]) -> LlamaConfig:
    window = round(original * factor)
    return LlamaConfig(
        hidden_size=2 * dim, num_attention_heads=2, max_position_embeddings=window, rope_parameters=parameters
    )


def transformers_table(
    method: str, dim: int, theta: float, original: int, factor: float, extra: dict[str, Any]
) -> tuple[list[float], float]:
    """By ROPE_INIT_FUNCTIONS, from parameters written here."""
    parameters: dict[str, Any] = {"rope_theta": theta, "rope_type": "default"}
    if method == "pi":
        parameters |= {"rope_type": "linear", "factor": factor}
    if method == "yarn":
        parameters |= {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original, **extra}
    if method == "ntk":  # static NTK is dynamic NTK asked for the length at which its scale equals the factor
        parameters |= {"rope_type": "dynamic", "factor": 1.0}
        config = llama(dim, original, 1.0, parameters)
        inv_freq, scale = ROPE_INIT_FUNCTIONS["dynamic"](config, torch.device("cpu"), seq_len=round(original * factor))
    elif method == "none":
        inv_freq, scale = LlamaRotaryEmbedding.compute_default_rope_parameters(llama(dim, original, 1.0, parameters))
    else:
        config = llama(dim, original, factor, parameters)
        inv_freq, scale = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, torch.device("cpu"))
    return inv_freq.double().tolist(), float(scale)


def paper_table(
    method: str, d: int, b: float, original: int, s: float, extra: dict[str, Any]
) -> tuple[list[float], float]:
    """One dimension at a time, from arXiv 2306.15595 and 2309.00071."""
    if method == "none":
        return [b ** (-2 * i / d) for i in range(d // 2)], 1.0
    if method == "pi":
        return [b ** (-2 * i / d) / s for i in range(d // 2)], 1.0
    if method == "ntk":
        return [(b * s ** (d / (d - 2))) ** (-2 * i / d) for i in range(d // 2)], 1.0
    low, high = (paper_border(extra, name, d, b, original) for name in ("beta_fast", "beta_slow"))
    if low == high:
        high += 0.001
    found = []
    for i in range(d // 2):
        kept = 1 - min(1.0, max(0.0, (i - low) / (high - low)))
        frequency = b ** (-2 * i / d)
        found.append(kept * frequency + (1 - kept) * frequency / s)
    return found, extra.get("attention_factor", 0.1 * math.log(s) + 1)


def paper_border(extra: dict[str, Any], name: str, d: int, b: float, original: int) -> float:
    """The dimension whose wavelength 2 pi b^(2i/d) goes `turns` times into the original window, as the reference rounds it."""
    turns = extra.get(name, {"beta_fast": 32, "beta_slow": 1}[name])
    at = d / 2 * math.log(original / (2 * math.pi * turns), b)
    if extra.get("truncate", True):
        at = math.floor(at) if name == "beta_fast" else math.ceil(at)
    return max(at, 0) if name == "beta_fast" else min(at, d - 1)


def fp32(factor: float, extra: dict[str, Any]) -> float:
    """Relative error of the fp32 oracle: a ramp that ends between dimensions (`truncate: false`) leaves a share near 1
    whose rounding the factor multiplies."""
    return 1e-6 if extra.get("truncate", True) else max(2e-6, factor * 2.0**-23)


def same(table: Table, wanted: tuple[list[float], float], rel: float = 1e-6) -> None:
    assert table.inv_freq.dtype.name == "float64"
    assert table.inv_freq.tolist() == pytest.approx(wanted[0], rel=rel, abs=0)
    assert table.attention_factor == pytest.approx(wanted[1], rel=1e-6)


@pytest.mark.parametrize("method", KINDS)
def test_table_is_that_of_transformers(method: str) -> None:
    for theta, dim, original, factor in GRID:
        wanted = transformers_table(method, dim, theta, original, factor, {})
        same(ours(settings(method, factor), dim, theta, original), wanted)


@pytest.mark.parametrize("method", KINDS)
def test_table_is_that_of_the_papers(method: str) -> None:
    for theta, dim, original, factor in GRID:
        wanted = paper_table(method, dim, theta, original, factor, {})
        same(ours(settings(method, factor), dim, theta, original), wanted)


@pytest.mark.parametrize("extra", VARIANTS, ids=str)
def test_yarn_settings_mean_what_they_mean_in_transformers(extra: dict[str, Any]) -> None:
    for theta, dim, original, factor in GRID:
        table = ours(settings("yarn", factor, **extra), dim, theta, original)
        same(table, transformers_table("yarn", dim, theta, original, factor, extra), fp32(factor, extra))


@pytest.mark.parametrize("extra", VARIANTS, ids=str)
def test_yarn_settings_mean_what_they_mean_in_the_paper(extra: dict[str, Any]) -> None:
    for theta, dim, original, factor in GRID:
        table = ours(settings("yarn", factor, **extra), dim, theta, original)
        same(table, paper_table("yarn", dim, theta, original, factor, extra))


def test_far_corner_is_in_the_grid_and_clamped_at_the_whole_head() -> None:
    assert (1e4, 64, 131_072, 8.0) in GRID
    table = ours(settings("yarn", 8.0), 64, 1e4, 131_072)
    assert table.inv_freq[-1] > 1e4 ** (-62 / 64) / 8 * 1.5  # the slowest is not fully interpolated there


@pytest.mark.parametrize(
    ("method", "extra"), [("none", {}), ("pi", {}), ("ntk", {}), *(("yarn", v) for v in [{}, *VARIANTS])]
)
def test_written_parameters_build_the_same_table_in_a_real_rotary_module(method: str, extra: dict[str, Any]) -> None:
    for theta, dim, original, factor in GRID:
        base = llama(dim, original, 1.0, {"rope_type": "default", "rope_theta": theta})
        made = plan.make(settings(method, factor, **extra), base, "base")
        module = LlamaRotaryEmbedding(plan.apply(made, base))
        assert module.inv_freq.tolist() == pytest.approx(made.inv_freq, rel=fp32(factor, extra), abs=0)
        assert module.attention_scaling == pytest.approx(made.attention_factor, rel=1e-6)


def test_factor_one_changes_nothing_in_any_method() -> None:
    for kind in KINDS.values():
        same(ours(kind(factor=1.0), 64, 1e4, 4096), paper_table("none", 64, 1e4, 4096, 1.0, {}))


@pytest.mark.parametrize("factor", [1.5, 8.0, 64.0])
def test_ntk_keeps_the_shortest_and_stretches_the_longest_wavelength_by_the_factor(factor: float) -> None:
    table, base = ours(settings("ntk", factor), 64, 1e4, 4096), paper_table("none", 64, 1e4, 4096, 1.0, {})[0]
    assert table.inv_freq[0] == base[0] == 1
    assert base[-1] / table.inv_freq[-1] == pytest.approx(factor, rel=1e-9)


def test_yarn_keeps_fast_dimensions_and_divides_slow_ones() -> None:
    table, base = ours(settings("yarn", 8.0), 64, 1e4, 4096), paper_table("none", 64, 1e4, 4096, 1.0, {})[0]
    turns = [4096 * f / (2 * math.pi) for f in base]
    kept = [i for i, t in enumerate(turns) if t > 32 * 1e4 ** (2 / 64)]
    divided = [i for i, t in enumerate(turns) if t < 1 / 1e4 ** (2 / 64)]
    assert kept and divided
    assert all(table.inv_freq[i] == pytest.approx(base[i]) for i in kept)
    assert all(table.inv_freq[i] == pytest.approx(base[i] / 8) for i in divided)
