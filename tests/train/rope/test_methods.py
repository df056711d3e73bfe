"""Frequencies against two oracles: transformers' own functions, and the papers' equations written out here.

The sweep includes the far corner (theta 1e4, original window 131,072), where a ramp clamped at d/2-1 goes wrong by 66%.
"""

import itertools
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import DeepseekV3Config, LlamaConfig, Phi3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import (
    ROPE_METHODS,
    LongRopeConfig,
    RopeConfig,
    Rotary,
    Table,
    TableConfig,
    YarnConfig,
)
from ropewalk.train.base import Base
from ropewalk.train.rope import plan, stage

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
    ("dynamic", {"alpha": 1.0}),
    ("dynamic", {"alpha": 2.5}),
    ("abf", {"rope_theta": 5e7}),
    ("longrope", {"attention_factor": 1.1}),
]
METHODS_WITHOUT_A_FILE = [m for m in ROPE_METHODS if m != "table"]


def divisors(dim: int, factor: float) -> list[float]:
    """Some divisors, rising from 1 to the factor."""
    return [1 + (factor - 1) * (i / (dim // 2 - 1)) ** 2 for i in range(dim // 2)]


def settings(method: str, factor: float, dim: int = 64, **extra: Any) -> RopeConfig:
    if method == "longrope":
        extra = {"long_factor": divisors(dim, factor)} | extra
    return ROPE_METHODS[method](factor=1.0 if method == "none" else factor, **extra)


def table_of(config: RopeConfig, dim: int, theta: float, original: int) -> Table:
    return config.table(Rotary(dim, theta, original))


LLAMA = LlamaConfig(hidden_size=64, num_attention_heads=2)


def llama(dim: int, window: int, parameters: dict[str, Any]) -> Any:
    """One config for the whole sweep: making one costs more than what is measured."""
    LLAMA.head_dim, LLAMA.max_position_embeddings, LLAMA.rope_parameters = dim, window, parameters
    return LLAMA


@contextmanager
def in_double() -> Iterator[None]:
    """transformers' functions in double precision: their own fp32 rounding of a ramp, times the factor, would hide 1e-6."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "float", torch.float64)
        patch.setattr(torch, "float32", torch.float64)
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        yield


def transformers_table(
    method: str, dim: int, theta: float, original: int, factor: float, extra: dict[str, Any]
) -> tuple[list[float], float]:
    """By ROPE_INIT_FUNCTIONS, from parameters written here."""
    cpu, at_original = torch.device("cpu"), {"original_max_position_embeddings": original}
    base: dict[str, Any] = {"rope_theta": theta}
    length = None
    if method == "pi":
        kind, more, window = "linear", {"factor": factor}, original
    elif method == "ntk":  # dynamic NTK asked for the length at which its scale equals the factor
        kind, more, window, length = "dynamic", {"factor": 1.0}, original, round(original * factor)
    elif method == "dynamic":
        alpha = extra.get("alpha", factor)
        kind, more, window, length = (
            "dynamic",
            {"factor": alpha},
            original,
            round(original * factor),
        )
    elif method == "ntk_by_parts":
        kind, more, window = (
            "yarn",
            {"factor": factor, "attention_factor": 1.0, **at_original, **extra},
            original,
        )
    elif method == "yarn":
        kind, more, window = "yarn", {"factor": factor, **at_original, **extra}, original
    elif method == "llama3":
        ramp = {"low_freq_factor": 1.0, "high_freq_factor": 4.0} | extra
        kind, more, window = "llama3", {"factor": factor, **at_original, **ramp}, original
    elif method == "longrope":
        long = divisors(dim, factor)
        kind, more, window = (
            "longrope",
            {
                "factor": factor,
                "long_factor": long,
                "short_factor": [1.0] * len(long),
                **at_original,
                **extra,
            },
            original,
        )
        length = original + 1
    else:
        theta = {"none": theta}.get(method) or extra["rope_theta"]
        config = llama(dim, original, {"rope_type": "default", "rope_theta": theta})
        with in_double():
            inv_freq, scale = LlamaRotaryEmbedding.compute_default_rope_parameters(config)
        return inv_freq.double().tolist(), float(scale)
    config = llama(dim, window, {"rope_type": kind, **base, **more})
    with in_double():
        inv_freq, scale = ROPE_INIT_FUNCTIONS[kind](config, cpu, seq_len=length)
    assert inv_freq.dtype == torch.float64
    return inv_freq.double().tolist(), float(scale)


def paper_table(
    method: str, d: int, b: float, o: int, s: float, extra: dict[str, Any]
) -> tuple[list[float], float]:
    """One dimension at a time, from the papers: each names its own."""
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
        theta = extra.get("rope_theta") or b ** math.log(s * o / (2 * math.pi), o / (2 * math.pi))
        return [theta ** (-2 * i / d) for i in range(d // 2)], 1.0
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
    """The dimension whose wavelength 2 pi b^(2i/d) goes `turns` times into the original window, as the reference rounds it."""
    turns = extra.get(name, {"beta_fast": 32, "beta_slow": 1}[name])
    dimension = d / 2 * math.log(original / (2 * math.pi * turns), b)
    if extra.get("truncate", True):
        dimension = math.floor(dimension) if name == "beta_fast" else math.ceil(dimension)
    return max(dimension, 0) if name == "beta_fast" else min(dimension, d - 1)


def fp32(method: str, factor: float, extra: dict[str, Any]) -> float:
    """Relative error of a live module in fp32: a ramp that ends between dimensions leaves a share near 1 whose rounding the
    factor multiplies. The papers' equations, in double precision, are held without that."""
    between = method == "llama3" or extra.get("truncate", True) is False
    return max(2e-6, factor * 2.0**-21) if between else 1e-6


def same(table: Table, expected: tuple[list[float], float], rel: float = 1e-9) -> None:
    assert table.inv_freq.dtype.name == "float64"
    worst = max(abs(a / b - 1) for a, b in zip(table.inv_freq.tolist(), expected[0], strict=True))
    assert worst <= rel, f"{worst:.2e} relative"
    assert table.attention_factor == pytest.approx(expected[1], rel=rel)


def test_the_grid_is_the_promised_one() -> None:
    assert len(GRID) == 750 and (1e4, 64, 131_072, 8.0) in GRID


@pytest.mark.parametrize("method", [m for m in METHODS_WITHOUT_A_FILE if m != "abf"])
def test_table_is_that_of_transformers(method: str) -> None:
    for theta, dim, original, factor in GRID:
        expected = transformers_table(method, dim, theta, original, factor, {})
        same(table_of(settings(method, factor, dim), dim, theta, original), expected)


@pytest.mark.parametrize("method", METHODS_WITHOUT_A_FILE)
def test_table_is_that_of_the_papers(method: str) -> None:
    for theta, dim, original, factor in GRID:
        expected = paper_table(method, dim, theta, original, factor, {})
        same(table_of(settings(method, factor, dim), dim, theta, original), expected)


@pytest.mark.parametrize(("method", "extra"), VARIANTS, ids=str)
def test_settings_mean_what_they_mean_in_transformers(method: str, extra: dict[str, Any]) -> None:
    for theta, dim, original, factor in SMALL:
        table = table_of(settings(method, factor, dim, **extra), dim, theta, original)
        same(table, transformers_table(method, dim, theta, original, factor, extra))


@pytest.mark.parametrize(("method", "extra"), VARIANTS, ids=str)
def test_settings_mean_what_they_mean_in_the_papers(method: str, extra: dict[str, Any]) -> None:
    for theta, dim, original, factor in SMALL:
        table = table_of(settings(method, factor, dim, **extra), dim, theta, original)
        same(table, paper_table(method, dim, theta, original, factor, extra))


def test_far_corner_is_clamped_at_the_whole_head() -> None:
    table = table_of(settings("yarn", 8.0), 64, 1e4, 131_072)
    assert (
        table.inv_freq[-1] > 1e4 ** (-62 / 64) / 8 * 1.5
    )  # the slowest is not fully interpolated there


@pytest.mark.parametrize(
    ("method", "extra"), [*((m, {}) for m in METHODS_WITHOUT_A_FILE), *VARIANTS], ids=str
)
def test_written_parameters_build_the_same_table_in_a_real_rotary_module(
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
            expected, rel=fp32(method, factor, extra), abs=0
        )
        assert module.attention_scaling == pytest.approx(planned.attention_factor, rel=1e-6)


@pytest.mark.parametrize("method", [m for m in METHODS_WITHOUT_A_FILE if m != "longrope"])
def test_factor_one_changes_nothing(method: str) -> None:
    same(
        table_of(ROPE_METHODS[method](factor=1.0), 64, 1e4, 4096),
        paper_table("none", 64, 1e4, 4096, 1.0, {}),
        1e-12,
    )


@pytest.mark.parametrize("factor", [1.5, 8.0, 64.0])
def test_ntk_keeps_the_shortest_and_stretches_the_longest_wavelength_by_the_factor(
    factor: float,
) -> None:
    table, base = (
        table_of(settings("ntk", factor), 64, 1e4, 4096),
        paper_table("none", 64, 1e4, 4096, 1.0, {})[0],
    )
    assert table.inv_freq[0] == base[0] == 1
    assert base[-1] / table.inv_freq[-1] == pytest.approx(factor, rel=1e-9)


def test_yarn_keeps_fast_dimensions_and_divides_slow_ones() -> None:
    table, base = (
        table_of(settings("yarn", 8.0), 64, 1e4, 4096),
        paper_table("none", 64, 1e4, 4096, 1.0, {})[0],
    )
    turns = [4096 * f / (2 * math.pi) for f in base]
    unchanged = [i for i, t in enumerate(turns) if t > 32 * 1e4 ** (2 / 64)]
    divided = [i for i, t in enumerate(turns) if t < 1 / 1e4 ** (2 / 64)]
    assert unchanged and divided
    assert all(table.inv_freq[i] == pytest.approx(base[i]) for i in unchanged)
    assert all(table.inv_freq[i] == pytest.approx(base[i] / 8) for i in divided)


def test_solved_theta_keeps_the_critical_dimension() -> None:
    """arXiv 2310.05209: the dimension whose wavelength was the original window has the new one for its wavelength."""
    d, b, o, s = 128, 1e4, 4096, 8.0
    critical = math.log(o / (2 * math.pi), b)  # 2i/d at which 2 pi b^(2i/d) = o
    table = table_of(settings("abf", s), d, b, o)
    theta = table.inv_freq[1] ** (-d / 2)
    assert 2 * math.pi * theta**critical == pytest.approx(s * o, rel=1e-9)


def test_a_table_from_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    expected = [0.9, 0.1, 0.02, 0.001]
    (tmp_path / "t.json").write_text(
        json.dumps({"inv_freq": expected, "attention_factor": 1.05, "factor": 4.0})
    )
    base = LlamaConfig(hidden_size=16, num_attention_heads=2, max_position_embeddings=256)
    planned = plan.make(TableConfig(path=str(tmp_path / "t.json")), base, "base")
    assert (planned.inv_freq, planned.attention_factor, planned.max_position_embeddings) == (
        expected,
        1.05,
        1024,
    )
    module = LlamaRotaryEmbedding(plan.apply(planned, base))
    assert module.inv_freq.tolist() == pytest.approx(expected, rel=1e-6)
    assert module.attention_scaling == pytest.approx(1.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "must be JSON with a list `inv_freq`"),
        ("not json", "must be JSON with a list `inv_freq`"),
        ('{"frequencies": []}', "must be JSON with a list `inv_freq`"),
        ('{"inv_freq": [1.0, 0.1]}', "has 2 frequencies, the model 4"),
        ('{"inv_freq": [1.0, 0.1, 0.01, 0]}', "every inv_freq must be above 0"),
        ('{"inv_freq": "1234"}', "must be JSON with a list `inv_freq`"),
        ('{"inv_freq": [1.0, 0.1, 0.01, true]}', "every inv_freq must be above 0"),
        ('{"inv_freq": [1.0, 0.1, 0.01, "x"]}', "every inv_freq must be above 0"),
        ('{"inv_freq": []}', "every inv_freq must be above 0"),
        *(
            (f'{{"inv_freq": [1.0, 0.1, 0.01, 0.001], {more}}}', message)
            for more, message in (
                (
                    '"attention_factor": 0',
                    "its attention_factor must be a finite number above 0, not 0",
                ),
                (
                    '"attention_factor": "x"',
                    "its attention_factor must be a finite number above 0, not x",
                ),
                ('"attention_factor": [1]', "its attention_factor must be a finite number above 0"),
                (
                    '"attention_factor": NaN',
                    "its attention_factor must be a finite number above 0, not nan",
                ),
                (
                    f'"attention_factor": {"9" * 400}',
                    "its attention_factor must be a finite number above 0",
                ),
                ('"factor": "four"', "its factor must be a finite number of at least 1, not four"),
                ('"factor": 0.5', "its factor must be a finite number of at least 1, not 0.5"),
                ('"factor": Infinity', "its factor must be a finite number of at least 1, not inf"),
                ('"rope_parameters": [1]', "its rope_parameters must be a table of settings"),
                (
                    '"rope_parameters": {"rope_type": "yarn"}',
                    "its rope_parameters must be a form that Ropewalk reads",
                ),
                (
                    '"rope_parameters": {"rope_type": "foo", "rope_theta": 1e4}',
                    "must be a form that Ropewalk reads",
                ),
                (
                    '"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": "x"}',
                    "must be a form that",
                ),
                ('"rope_theta": "x"', "its rope_theta must be a finite number above 0"),
                (
                    '"max_position_embeddings": "x"',
                    "its max_position_embeddings must be a number of tokens",
                ),
                ('"calibrated_on": 1', "its calibrated_on must be a list"),
            )
        ),
    ],
)
def test_a_file_that_is_no_table_for_this_model_is_refused(
    tmp_path: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "t.json").write_text(text)
    base = LlamaConfig(hidden_size=16, num_attention_heads=2, max_position_embeddings=256)
    with pytest.raises(ConfigError, match=message):
        plan.make(TableConfig(path=str(tmp_path / "t.json"), factor=2.0), base, "base")


def test_factors_of_a_wrong_count_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"long_factor has 3 numbers; .* must be 32"):
        table_of(LongRopeConfig(factor=2.0, long_factor=[1.0, 1.5, 2.0]), 64, 1e4, 4096)
    with pytest.raises(ConfigError, match=r"short_factor has 1 numbers"):
        table_of(
            LongRopeConfig(factor=2.0, long_factor=[1.0] * 32, short_factor=[1.0]), 64, 1e4, 4096
        )


def test_a_target_length_and_a_factor_give_one_plan() -> None:
    base = LlamaConfig(hidden_size=64, num_attention_heads=2, max_position_embeddings=4096)
    by_factor, by_length = (
        plan.make(c, base, "base")
        for c in (YarnConfig(factor=8.0), YarnConfig(target_length=32_768))
    )
    assert by_factor == by_length
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


def small(theta: float = 1e4, window: int = 256, **kwargs: Any) -> LlamaConfig:
    parameters = {"rope_type": "default", "rope_theta": theta}
    return LlamaConfig(
        hidden_size=64,
        num_attention_heads=2,
        max_position_embeddings=window,
        rope_parameters=parameters,
        **kwargs,
    )


def from_file(folder: Path, content: dict[str, Any], **kwargs: Any) -> TableConfig:
    (folder / "t.json").write_text(json.dumps(content))
    return TableConfig(path=str(folder / "t.json"), **kwargs)


def test_nulls_in_a_file_are_as_if_absent(tmp_path: Path) -> None:
    nulls = dict.fromkeys(
        ("attention_factor", "factor", "rope_parameters", "max_position_embeddings")
    )
    rope = from_file(tmp_path, {"inv_freq": [0.5**i for i in range(16)], **nulls}, factor=2.0)
    planned = plan.make(rope, small(), "base")
    assert (planned.attention_factor, planned.factor, planned.rope_parameters["rope_type"]) == (
        1.0,
        2.0,
        "longrope",
    )


@pytest.mark.parametrize(
    "method", [m for m in METHODS_WITHOUT_A_FILE if m not in ("none", "dynamic")]
)
def test_a_written_plan_is_taken_by_its_own_model_only(method: str, tmp_path: Path) -> None:
    planned = plan.make(settings(method, 4.0, 32), small(), "base")
    rope = from_file(tmp_path, planned.json())
    assert plan.make(rope, small(), "base").hash == planned.hash
    with pytest.raises(
        ConfigError,
        match=r"was made for rope_theta 10000.0, the model has 500000; they must be the same",
    ):
        plan.make(rope, small(theta=5e5), "base")
    with pytest.raises(
        ConfigError,
        match=r"for original_max_position_embeddings 256, the model has 512; they must be",
    ):
        plan.make(rope, small(window=512), "base")


@pytest.mark.parametrize("method", ["yarn", "ntk", "longrope"])
@pytest.mark.parametrize("key", ["inv_freq", "attention_factor"])
def test_an_edited_table_beside_old_rope_parameters_is_refused(
    method: str, key: str, tmp_path: Path
) -> None:
    planned = plan.make(settings(method, 4.0, 32), small(), "base").json()
    edited = (
        planned[key] * 1.01
        if key == "attention_factor"
        else [*planned[key][:-1], planned[key][-1] * 0.99]
    )
    with pytest.raises(
        ConfigError, match="mean another table than its inv_freq and attention_factor; .* remove"
    ):
        plan.make(from_file(tmp_path, {**planned, key: edited}), small(), "base")
    without = {k: v for k, v in planned.items() if k != "rope_parameters"} | {key: edited}
    assert plan.make(from_file(tmp_path, without), small(), "base").json()[key] == edited


def test_a_table_in_the_words_of_its_architecture_is_taken(tmp_path: Path) -> None:
    """Phi-3 takes LongRoPE's words only; heads with decoupled dimensions have the temperature in the softmax scale."""
    kwargs: dict[str, Any] = {
        "hidden_size": 64,
        "num_attention_heads": 2,
        "max_position_embeddings": 256,
    }
    phi = Phi3Config(**kwargs, original_max_position_embeddings=256, pad_token_id=0)
    deepseek = DeepseekV3Config(**kwargs, qk_rope_head_dim=8, qk_nope_head_dim=24)
    for base in (phi, deepseek):
        planned = plan.make(YarnConfig(factor=4.0), base, "base")
        assert plan.make(from_file(tmp_path, planned.json()), base, "base").hash == planned.hash


def test_a_table_for_a_shorter_window_is_refused(tmp_path: Path) -> None:
    rope = from_file(
        tmp_path, {"inv_freq": [0.5**i for i in range(16)], "max_position_embeddings": 128}
    )
    with pytest.raises(
        ConfigError,
        match="its max_position_embeddings 128 must be at least the original window 256",
    ):
        plan.make(rope, small(), "base")


def composed(rope: RopeConfig) -> Any:
    return SimpleNamespace(rope=rope)


def test_other_methods_beside_a_table_take_the_factor_of_its_file(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(stage, "base_config", lambda base: small())
    rope = from_file(tmp_path, plan.make(YarnConfig(factor=4.0), small(), "base").json())
    others = stage.comparison_plans(composed(rope), Base(None), ["yarn", "none", "pi"])
    assert [(p.method, p.factor) for p in others] == [("yarn", 4.0), ("none", 1.0), ("pi", 4.0)]
    by_length = stage.comparison_plans(composed(YarnConfig(target_length=512)), Base(None), ["pi"])
    assert by_length[0].max_position_embeddings == 512


def test_without_a_factor_no_method_can_be_compared(monkeypatch: Any) -> None:
    monkeypatch.setattr(stage, "base_config", lambda base: small())
    assert stage.comparison_plans(composed(RopeConfig()), Base(None), ["none"])[0].factor == 1
    with pytest.raises(
        ConfigError,
        match="--compare has yarn; it needs a factor, and rope=none has none; e.g. rope=pi",
    ):
        stage.comparison_plans(composed(RopeConfig()), Base(None), ["yarn"])
    with pytest.raises(ConfigError, match="rope.factor is not set; rope=yarn needs a factor"):
        plan.make(YarnConfig(), small(), "base")
