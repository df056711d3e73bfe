"""Tables from a file, and other methods compared with them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rope_models import METHODS_WITHOUT_A_FILE, settings
from transformers import DeepseekV3Config, LlamaConfig, Phi3Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import (
    RopeConfig,
    Rotary,
    TableConfig,
    YarnConfig,
)
from ropewalk.train.base import Base
from ropewalk.train.rope import plan, stage


def test_a_table_from_a_file_is_used_unchanged(tmp_path: Path) -> None:
    expected = [0.9, 0.1, 0.02, 0.001]
    (tmp_path / "t.json").write_text(
        json.dumps({"inv_freq": expected, "attention_factor": 1.05, "factor": 4.0})
    )
    base = LlamaConfig(hidden_size=16, num_attention_heads=2, max_position_embeddings=256)
    planned = plan.make(TableConfig(path=str(tmp_path / "t.json")), base, "base")
    assert (planned.inv_freq, planned.attention_factor) == (expected, 1.05)
    assert planned.max_position_embeddings == 1024
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
def test_a_file_without_a_table_for_this_model_is_refused(
    tmp_path: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "t.json").write_text(text)
    base = LlamaConfig(hidden_size=16, num_attention_heads=2, max_position_embeddings=256)
    with pytest.raises(ConfigError, match=message):
        plan.make(TableConfig(path=str(tmp_path / "t.json"), factor=2.0), base, "base")


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


def test_nulls_in_a_file_count_as_absent(tmp_path: Path) -> None:
    nulls = dict.fromkeys(
        ("attention_factor", "factor", "rope_parameters", "max_position_embeddings")
    )
    rope = from_file(tmp_path, {"inv_freq": [0.5**i for i in range(16)], **nulls}, factor=2.0)
    planned = plan.make(rope, small(), "base")
    assert (planned.attention_factor, planned.factor) == (1.0, 2.0)
    assert planned.rope_parameters["rope_type"] == "longrope"


@pytest.mark.parametrize(
    "method", [m for m in METHODS_WITHOUT_A_FILE if m not in ("none", "dynamic")]
)
def test_a_written_plan_fits_its_own_model_only(method: str, tmp_path: Path) -> None:
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
    edited = [*planned["inv_freq"][:-1], planned["inv_freq"][-1] * 0.99]
    if key == "attention_factor":
        edited = planned[key] * 1.01
    with pytest.raises(
        ConfigError, match="mean another table than its inv_freq and attention_factor; .* remove"
    ):
        plan.make(from_file(tmp_path, {**planned, key: edited}), small(), "base")
    without = {k: v for k, v in planned.items() if k != "rope_parameters"} | {key: edited}
    assert plan.make(from_file(tmp_path, without), small(), "base").json()[key] == edited


def test_a_table_in_the_form_of_its_architecture_is_accepted(tmp_path: Path) -> None:
    """Phi-3 reads LongRoPE only; DeepSeek's temperature lies in the softmax scale."""
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


def test_a_plan_reads_its_file_once_and_the_next_plan_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rope = from_file(tmp_path, plan.make(YarnConfig(factor=4.0), small(), "base").json())
    read_file, reads = TableConfig.read_file, []
    monkeypatch.setattr(TableConfig, "read_file", lambda self: reads.append(1) or read_file(self))
    expected = plan.make(rope, small(), "base")
    assert len(reads) == 1
    from_file(tmp_path, plan.make(YarnConfig(factor=8.0), small(), "base").json())
    assert (expected.factor, plan.make(rope, small(), "base").factor) == (4.0, 8.0)


def composed(rope: RopeConfig) -> Any:
    return SimpleNamespace(rope=rope, model=SimpleNamespace(sliding_window=None))


def test_methods_compared_with_a_table_have_the_factor_of_its_file(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(stage, "base_config", lambda base: small())
    rope = from_file(tmp_path, plan.make(YarnConfig(factor=4.0), small(), "base").json())
    others = stage.comparison_plans(composed(rope), Base(None), ["yarn", "none", "pi"])
    assert [(p.method, p.factor) for p in others] == [("yarn", 4.0), ("none", 1.0), ("pi", 4.0)]
    by_length = stage.comparison_plans(composed(YarnConfig(target_length=512)), Base(None), ["pi"])
    assert by_length[0].max_position_embeddings == 512


def test_methods_without_a_factor_are_not_compared(monkeypatch: Any) -> None:
    monkeypatch.setattr(stage, "base_config", lambda base: small())
    assert stage.comparison_plans(composed(RopeConfig()), Base(None), ["none"])[0].factor == 1
    with pytest.raises(
        ConfigError,
        match="--compare has yarn; it needs a factor, and rope=none has none; e.g. rope=pi",
    ):
        stage.comparison_plans(composed(RopeConfig()), Base(None), ["yarn"])
    with pytest.raises(ConfigError, match="rope.factor is not set; rope=yarn needs a factor"):
        plan.make(YarnConfig(), small(), "base")


@pytest.mark.parametrize("theta", [1, 0.5, 1e4])
def test_a_theta_of_rope_parameters_is_above_one(tmp_path: Path, theta: float) -> None:
    """The frequencies are theta ** (-2i / d) (arXiv 2104.09864); at 1 all of them are the same."""
    content = {
        "inv_freq": [float(theta) ** (-2 * i / 32) for i in range(16)],
        "rope_parameters": {"rope_type": "default", "rope_theta": theta},
    }
    rope = from_file(tmp_path, content, factor=1.0)
    if theta > 1:
        assert plan.make(rope, small(), "base").inv_freq == content["inv_freq"]
        return
    with pytest.raises(ConfigError, match="must be a form that Ropewalk reads .*rope_theta"):
        plan.make(rope, small(), "base")


def test_a_theta_in_quotes_is_refused(tmp_path: Path) -> None:
    content = {
        "inv_freq": [1e4 ** (-2 * i / 32) for i in range(16)],
        "rope_parameters": {"rope_type": "default", "rope_theta": "10000"},
    }
    with pytest.raises(ConfigError, match="must be a form that Ropewalk reads .*rope_theta"):
        plan.make(from_file(tmp_path, content, factor=1.0), small(), "base")


@pytest.mark.parametrize(("factor", "refused"), [(4.0, False), (None, False), (2.0, True)])
def test_the_factor_of_a_file_must_be_that_of_the_settings(
    tmp_path: Path, factor: float | None, refused: bool
) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"inv_freq": [0.9, 0.1, 0.02, 0.001], "factor": factor}))
    base = LlamaConfig(hidden_size=16, num_attention_heads=2, max_position_embeddings=256)
    if not refused:
        assert plan.make(TableConfig(path=str(path), factor=4.0), base, "base").factor == 4.0
        return
    message = r"rope\.factor is 4; the table of rope\.path was made for 2; .*unset rope\.factor"
    with pytest.raises(ConfigError, match=message):
        plan.make(TableConfig(path=str(path), factor=4.0), base, "base")


def test_a_file_without_a_temperature_has_none(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"inv_freq": [0.9, 0.1, 0.02, 0.001], "attention_factor": None}))
    table = TableConfig(path=str(path)).table(Rotary(8, 1e4, 64))
    assert table.attention_factor == 1 and table.inv_freq.tolist() == [0.9, 0.1, 0.02, 0.001]
