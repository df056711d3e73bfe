"""Frequencies against two oracles: transformers' own functions, and the equations of the papers.

The sweep includes the far corner (theta 1e4, original window 131,072), where a ramp clamped at
d/2-1 would be off by 66%.
"""

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from rope_models import METHODS_WITHOUT_A_FILE, divisors, settings
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import (
    ROPE_METHODS,
    LongRopeConfig,
    RopeConfig,
    Rotary,
    Table,
    YarnConfig,
)
from ropewalk.train.rope import plan

THETAS, DIMS = (1e4, 1e5, 5e5, 1e6, 1e7), (32, 64, 96, 128, 256)
WINDOWS, FACTORS = (256, 2048, 8192, 32_768, 131_072), (1.5, 2.0, 4.0, 8.0, 32.0, 64.0)
GRID = list(itertools.product(THETAS, DIMS, WINDOWS, FACTORS))
SMALL = list(
    itertools.product((1e4, 5e5, 1e7), (32, 64, 128), (256, 8192, 131_072), (1.5, 8.0, 64.0))
)
YARN_VARIANTS: list[dict[str, Any]] = [
    {"beta_fast": 16.0, "beta_slow": 2.0},
    {"beta_fast": 64.0},
    {"beta_slow": 0.25},
    {"attention_factor": 1.0},
    {"attention_factor": 1.25},
    {"mscale": 0.707, "mscale_all_dim": 1.0},
    {"mscale": 1.0, "mscale_all_dim": 1.0},
    {"truncate": False},
    {"truncate": False, "beta_fast": 8.0, "beta_slow": 4.0},
]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *(("yarn", v) for v in YARN_VARIANTS),
    ("ntk_by_parts", {"beta_fast": 16.0, "beta_slow": 2.0}),
    ("ntk_by_parts", {"truncate": False}),
    ("llama3", {"low_freq_factor": 2.0, "high_freq_factor": 16.0}),
    *((method, {"rope_theta": 3e6}) for method in ("pi", "ntk_by_parts", "yarn", "llama3")),
    ("dynamic", {"alpha": 1.0}),
    ("dynamic", {"alpha": 2.5}),
    ("abf", {"rope_theta": 5e7}),
    ("longrope", {"attention_factor": 1.1}),
]


def table_of(config: RopeConfig, dim: int, theta: float, original: int) -> Table:
    return config.table(Rotary(dim, theta, original))


LLAMA = LlamaConfig(hidden_size=64, num_attention_heads=2)


def llama(dim: int, window: int, parameters: dict[str, Any]) -> Any:
    """One config for the whole sweep, because building it takes longer than the comparison."""
    LLAMA.head_dim, LLAMA.max_position_embeddings, LLAMA.rope_parameters = dim, window, parameters
    return LLAMA


@contextmanager
def in_double() -> Iterator[None]:
    """Run transformers' functions in double precision.

    Their own fp32 rounding of a ramp, times the factor, would hide 1e-6.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "float", torch.float64)
        patch.setattr(torch, "float32", torch.float64)
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        yield


def transformers_table(
    method: str, dim: int, theta: float, original: int, factor: float, extra: dict[str, Any]
) -> tuple[list[float], float]:
    """The table by ROPE_INIT_FUNCTIONS, from parameters that do not come from Ropewalk."""
    length = None
    parameters: dict[str, Any]
    kind, parameters = method, {"factor": factor, "original_max_position_embeddings": original}
    if method in ("none", "abf"):
        theta = theta if method == "none" else extra["rope_theta"]
        config = llama(dim, original, {"rope_type": "default", "rope_theta": theta})
        with in_double():
            inv_freq, scale = LlamaRotaryEmbedding.compute_default_rope_parameters(config)
        return inv_freq.double().tolist(), float(scale)
    if method == "pi":
        kind, parameters = "linear", {"factor": factor, **extra}
    elif method in ("ntk", "dynamic"):
        # NTK is dynamic NTK at the length at which its scale equals the factor
        alpha = 1.0 if method == "ntk" else extra.get("alpha", factor)
        kind, parameters, length = "dynamic", {"factor": alpha}, round(original * factor)
    elif method == "ntk_by_parts":
        kind, parameters = "yarn", {**parameters, "attention_factor": 1.0, **extra}
    elif method == "llama3":
        parameters |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, **extra}
    elif method == "longrope":
        long = divisors(dim, factor)
        parameters |= {"long_factor": long, "short_factor": [1.0] * len(long), **extra}
        length = original + 1
    else:
        assert method == "yarn", f"say how transformers computes {method}"
        parameters |= extra
    config = llama(dim, original, {"rope_type": kind, "rope_theta": theta, **parameters})
    with in_double():
        inv_freq, scale = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), seq_len=length)
    assert inv_freq.dtype == torch.float64
    return inv_freq.double().tolist(), float(scale)


def paper_table(
    method: str, d: int, b: float, o: int, s: float, extra: dict[str, Any]
) -> tuple[list[float], float]:
    """The table of the papers, one dimension at a time."""
    given = extra.get("rope_theta")
    b = given or b
    extra = {key: value for key, value in extra.items() if key != "rope_theta"}
    unscaled = [b ** (-2 * i / d) for i in range(d // 2)]
    if method == "none":
        return unscaled, 1.0
    if method == "pi":  # arXiv 2306.15595, eq. 4
        return [f / s for f in unscaled], 1.0
    if method == "ntk":  # arXiv 2309.00071, definition 1
        return [(b * s ** (d / (d - 2))) ** (-2 * i / d) for i in range(d // 2)], 1.0
    if method == "dynamic":  # the same at s = L/o, with the factor that transformers adds
        alpha = extra.get("alpha", s)
        return [
            (b * (alpha * s - alpha + 1) ** (d / (d - 2))) ** (-2 * i / d) for i in range(d // 2)
        ], 1.0
    if method == "llama3":  # wavelengths, as in Meta's code
        return [llama3_frequency(f, o, s, **extra) for f in unscaled], 1.0
    if method == "longrope":  # arXiv 2402.13753, eq. 2, and its code's temperature
        default = math.sqrt(1 + math.log(s) / math.log(o))
        return [f / x for f, x in zip(unscaled, divisors(d, s), strict=True)], extra.get(
            "attention_factor", default
        )
    if method == "abf":  # arXiv 2310.05209, theorem 2
        theta = given or b ** math.log(s * o / (2 * math.pi), o / (2 * math.pi))
        return [theta ** (-2 * i / d) for i in range(d // 2)], 1.0
    assert method in ("ntk_by_parts", "yarn"), f"write the paper's table of {method} here"
    low, high = (paper_border(extra, name, d, b, o) for name in ("beta_fast", "beta_slow"))
    if low == high:
        high += 0.001
    frequencies = []
    for i, frequency in enumerate(unscaled):
        unchanged = 1 - min(1.0, max(0.0, (i - low) / (high - low)))
        frequencies.append(unchanged * frequency + (1 - unchanged) * frequency / s)
    return frequencies, 1.0 if method == "ntk_by_parts" else paper_temperature(s, **extra)


def paper_temperature(s: float, **extra: Any) -> float:
    if "attention_factor" in extra:
        return float(extra["attention_factor"])
    above, below = extra.get("mscale", 1.0), extra.get("mscale_all_dim", 0.0)
    return (0.1 * above * math.log(s) + 1) / (0.1 * below * math.log(s) + 1)


def llama3_frequency(
    f: float, o: int, s: float, low_freq_factor: float = 1.0, high_freq_factor: float = 4.0
) -> float:
    wavelength = 2 * math.pi / f
    if wavelength < o / high_freq_factor:
        return f
    if wavelength > o / low_freq_factor:
        return f / s
    smooth = (o / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor)
    return (1 - smooth) * f / s + smooth * f


def paper_border(extra: dict[str, Any], name: str, d: int, b: float, original: int) -> float:
    """The dimension whose wavelength 2 pi b^(2i/d) fits `turns` times into the original window.

    Rounded as in the reference implementation.
    """
    turns = extra.get(name, {"beta_fast": 32, "beta_slow": 1}[name])
    dimension = d / 2 * math.log(original / (2 * math.pi * turns), b)
    if extra.get("truncate", True):
        dimension = math.floor(dimension) if name == "beta_fast" else math.ceil(dimension)
    return max(dimension, 0) if name == "beta_fast" else min(dimension, d - 1)


def fp32_tolerance(method: str, factor: float, extra: dict[str, Any]) -> float:
    """Relative error of a live module in fp32.

    A ramp that ends between dimensions leaves a share near 1, whose rounding the factor multiplies.
    The comparisons in double precision need no such tolerance.
    """
    between = method == "llama3" or extra.get("truncate", True) is False
    return max(2e-6, factor * 2.0**-21) if between else 1e-6


def assert_same(table: Table, expected: tuple[list[float], float], rel: float = 1e-9) -> None:
    assert table.inv_freq.dtype.name == "float64"
    worst = max(abs(a / b - 1) for a, b in zip(table.inv_freq.tolist(), expected[0], strict=True))
    assert worst <= rel, f"{worst:.2e} relative"
    assert table.attention_factor == pytest.approx(expected[1], rel=rel)


def test_the_grid_has_750_points_and_the_far_corner() -> None:
    assert len(GRID) == 750 and (1e4, 64, 131_072, 8.0) in GRID


@pytest.mark.parametrize("method", [m for m in METHODS_WITHOUT_A_FILE if m != "abf"])
def test_the_table_equals_that_of_transformers(method: str) -> None:
    for theta, dim, original, factor in GRID:
        expected = transformers_table(method, dim, theta, original, factor, {})
        assert_same(table_of(settings(method, factor, dim), dim, theta, original), expected)


@pytest.mark.parametrize("method", METHODS_WITHOUT_A_FILE)
def test_the_table_equals_that_of_the_papers(method: str) -> None:
    for theta, dim, original, factor in GRID:
        expected = paper_table(method, dim, theta, original, factor, {})
        assert_same(table_of(settings(method, factor, dim), dim, theta, original), expected)


@pytest.mark.parametrize(("method", "extra"), VARIANTS, ids=str)
def test_settings_mean_the_same_as_in_transformers(method: str, extra: dict[str, Any]) -> None:
    for theta, dim, original, factor in SMALL:
        table = table_of(settings(method, factor, dim, **extra), dim, theta, original)
        assert_same(table, transformers_table(method, dim, theta, original, factor, extra))


@pytest.mark.parametrize(("method", "extra"), VARIANTS, ids=str)
def test_settings_mean_the_same_as_in_the_papers(method: str, extra: dict[str, Any]) -> None:
    for theta, dim, original, factor in SMALL:
        table = table_of(settings(method, factor, dim, **extra), dim, theta, original)
        assert_same(table, paper_table(method, dim, theta, original, factor, extra))


def test_the_ramp_of_the_far_corner_is_clamped_at_the_head_size() -> None:
    table = table_of(settings("yarn", 8.0), 64, 1e4, 131_072)
    # the slowest dimension is not fully interpolated
    assert table.inv_freq[-1] > 1e4 ** (-62 / 64) / 8 * 1.5


def test_the_ramp_ends_at_the_last_dimension_of_the_head_at_the_most() -> None:
    """8 ln(1024 / 2 pi) / 2 ln 10 is 8.8 and 8 ln(1024 / 128 pi) / 2 ln 10 is 1.6: from 1 to 7."""
    table = table_of(settings("yarn", 8.0, beta_fast=64.0), 8, 10.0, 1024)
    shares = [0, 0, 1 / 6, 2 / 6]
    by_hand = [10 ** (-n / 4) * (1 - share + share / 8) for n, share in enumerate(shares)]
    assert table.inv_freq == pytest.approx(by_hand, rel=1e-12)


@pytest.mark.parametrize(
    ("method", "extra"), [*((m, {}) for m in METHODS_WITHOUT_A_FILE), *VARIANTS], ids=str
)
def test_a_rotary_module_built_from_the_parameters_has_the_same_table(
    method: str, extra: dict[str, Any]
) -> None:
    for theta, dim, original, factor in SMALL:
        base = LlamaConfig(
            hidden_size=2 * dim,
            num_attention_heads=2,
            max_position_embeddings=original,
            rope_parameters={"rope_type": "default", "rope_theta": theta},
        )
        planned = plan.make(settings(method, factor, dim, **extra), base, "base")
        module = LlamaRotaryEmbedding(plan.apply(planned, base))
        expected = planned.inv_freq if planned.short_inv_freq is None else planned.short_inv_freq
        assert module.inv_freq.tolist() == pytest.approx(
            expected, rel=fp32_tolerance(method, factor, extra), abs=0
        )
        assert module.attention_scaling == pytest.approx(planned.attention_factor, rel=1e-6)


@pytest.mark.parametrize("method", [m for m in METHODS_WITHOUT_A_FILE if m != "longrope"])
def test_factor_one_changes_nothing(method: str) -> None:
    table = table_of(ROPE_METHODS[method](factor=1.0), 64, 1e4, 4096)
    assert_same(table, paper_table("none", 64, 1e4, 4096, 1.0, {}), 1e-12)


@pytest.mark.parametrize("factor", [1.5, 8.0, 64.0])
def test_ntk_keeps_the_shortest_and_stretches_the_longest_wavelength_by_the_factor(
    factor: float,
) -> None:
    table = table_of(settings("ntk", factor), 64, 1e4, 4096)
    base, _ = paper_table("none", 64, 1e4, 4096, 1.0, {})
    assert table.inv_freq[0] == base[0] == 1
    assert base[-1] / table.inv_freq[-1] == pytest.approx(factor, rel=1e-9)


def test_yarn_keeps_fast_dimensions_and_divides_slow_ones() -> None:
    table = table_of(settings("yarn", 8.0), 64, 1e4, 4096)
    base, _ = paper_table("none", 64, 1e4, 4096, 1.0, {})
    turns = [4096 * f / (2 * math.pi) for f in base]
    unchanged = [i for i, t in enumerate(turns) if t > 32 * 1e4 ** (2 / 64)]
    divided = [i for i, t in enumerate(turns) if t < 1 / 1e4 ** (2 / 64)]
    assert unchanged and divided
    assert all(table.inv_freq[i] == pytest.approx(base[i]) for i in unchanged)
    assert all(table.inv_freq[i] == pytest.approx(base[i] / 8) for i in divided)


def test_solved_theta_keeps_the_critical_dimension() -> None:
    """arXiv 2310.05209: a wavelength of the original window becomes one of the new window."""
    d, b, o, s = 128, 1e4, 4096, 8.0
    critical = math.log(o / (2 * math.pi), b)  # 2i/d at which 2 pi b^(2i/d) = o
    table = table_of(settings("abf", s), d, b, o)
    theta = table.inv_freq[1] ** (-d / 2)
    assert 2 * math.pi * theta**critical == pytest.approx(s * o, rel=1e-9)


def test_a_wrong_number_of_divisors_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"long_factor has 3 numbers; .* must be 32"):
        table_of(LongRopeConfig(factor=2.0, long_factor=[1.0, 1.5, 2.0]), 64, 1e4, 4096)
    with pytest.raises(ConfigError, match=r"short_factor has 1 numbers"):
        table_of(
            LongRopeConfig(factor=2.0, long_factor=[1.0] * 32, short_factor=[1.0]), 64, 1e4, 4096
        )


def test_a_target_length_and_a_factor_give_one_plan() -> None:
    base = LlamaConfig(hidden_size=64, num_attention_heads=2, max_position_embeddings=4096)
    by_factor = plan.make(YarnConfig(factor=8.0), base, "base")
    assert plan.make(YarnConfig(target_length=32_768), base, "base") == by_factor
    assert plan.make(YarnConfig(factor=8.0, target_length=32_768), base, "base") == by_factor
    with pytest.raises(
        ConfigError, match=r"factor is 8 and rope.target_length is 16384; .* leads to 32768"
    ):
        plan.make(YarnConfig(factor=8.0, target_length=16_384), base, "base")
    with pytest.raises(ConfigError, match="target_length is 2048; the model already reads 4096"):
        plan.make(YarnConfig(target_length=2048), base, "base")
    with pytest.raises(
        ConfigError, match="target_length is 4096; the model already reads 4096; it must be longer"
    ):
        plan.make(YarnConfig(target_length=4096), base, "base")
