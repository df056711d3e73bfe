"""The export stage: its files, when it runs again, and its refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from train_settings import train_config
from transformers import AutoModelForCausalLM

from ropewalk.conf.artifacts.manifest import Manifest, write, write_json
from ropewalk.conf.data import DataConfig
from ropewalk.conf.errors import ConfigError, ProofError
from ropewalk.conf.eval import EvalConfig
from ropewalk.conf.export import ExportConfig
from ropewalk.conf.model import ModelConfig
from ropewalk.conf.rope_methods import Llama3Config, PIConfig, RopeConfig, YarnConfig
from ropewalk.conf.rules import problems
from ropewalk.conf.schema import Config
from ropewalk.conf.sources import SourceConfig
from ropewalk.train.export import hf_folder, stage
from ropewalk.train.model.build import load_trained

YARN = YarnConfig(factor=8.0)
INPUTS = {"rope": "a", "train": "b"}


def configured(gguf: str = "f16") -> Config:
    return Config(
        name="tiny",
        model=ModelConfig(path="tiny"),
        rope=YARN,
        data=DataConfig(seq_len=64, sources={"mine": SourceConfig(path="mine")}),
        train=train_config(steps=1, optimizer__lr=1e-3),
        eval=EvalConfig(),
        export=ExportConfig(gguf=gguf),
    )


@pytest.fixture
def run_dir(tiny: Callable[..., Any], trained: Callable[..., Any]) -> Path:
    """A run whose training is finished."""
    model, plan = trained(tiny("llama"), YARN)
    folder: Path = model.parents[1]
    write_json(folder / "rope.json", {**plan.json(), "findings": [], "fingerprint": "x"})
    return folder


def test_the_stage_writes_its_files_and_metadata(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, message = stage.run(configured(), INPUTS, run_dir / "export")
    output = run_dir / "export"
    names = {str(path.relative_to(output)) for path in output.rglob("*")}
    assert names >= {"SERVING.md", "serving.json", "manifest.json", "model-f16.gguf"}
    assert names >= {"hf/config.json", "hf/model.safetensors", "hf/README.md"}
    assert manifest.facts["gguf"] == "model-f16.gguf" and manifest.facts["same"]["vLLM"] is True
    assert message.startswith("export: done in")
    assert "rope proof after export" in capsys.readouterr().out
    written = json.dumps(manifest.facts) + (output / "serving.json").read_text()
    assert str(run_dir) not in written


def test_weights_are_linked_and_the_trained_model_is_unchanged(run_dir: Path) -> None:
    model = run_dir / "train" / "model"
    contents = {p.name: p.read_bytes() for p in model.iterdir()}
    stage.run(configured("off"), INPUTS, run_dir / "export")
    hf = run_dir / "export" / "hf"
    assert (hf / "model.safetensors").samefile(model / "model.safetensors")
    assert {p.name: p.read_bytes() for p in model.iterdir()} == contents
    assert not (hf / "config.json").samefile(model / "config.json")
    assert json.loads((hf / "config.json").read_text())["rope_scaling"]["type"] == "yarn"


def test_weights_are_copied_where_links_are_not_allowed(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(hf_folder.os, "link", refuse)
    stage.run(configured("off"), INPUTS, run_dir / "export")
    copied, source = (
        f / "model.safetensors" for f in (run_dir / "export" / "hf", run_dir / "train" / "model")
    )
    assert not copied.samefile(source) and copied.read_bytes() == source.read_bytes()


def test_the_stage_runs_again_after_a_new_measurement(run_dir: Path) -> None:
    output = run_dir / "export"
    stage.run(configured("off"), INPUTS, output)
    assert "skipped" in stage.run(configured("off"), INPUTS, output)[1]
    assert "export.gguf was" in stage.run(configured("f32"), INPUTS, output)[1]
    write_measurement(run_dir, {**INPUTS, "train": "another"})
    # a measurement of another training does not count
    assert "skipped" in stage.run(configured("f32"), INPUTS, output)[1]
    write_measurement(run_dir, INPUTS)
    assert "results was" in stage.run(configured("f32"), INPUTS, output)[1]
    assert "+0.010 nats" in (output / "SERVING.md").read_text()


def write_measurement(run_dir: Path, inputs: dict[str, str]) -> None:
    """Write the results of an eval of the model with these `inputs`."""
    bins = [{"from": 0, "to": 256, "nll": 3.0, "low": 2.9, "high": 3.1, "tokens": 9}]
    gate = {
        "name": "Inside the original window",
        "text": "+0.010 nats",
        "rule": "at most +0.05",
        "verdict": "pass",
    }
    folder = run_dir / "eval"
    folder.mkdir(exist_ok=True)
    models = {name: {"nll_by_position": bins} for name in ("base", "extended")}
    write_json(folder / "results.json", {"base_window": 256, "models": models, "gates": [gate]})
    write(folder, Manifest.for_content("eval", {"inputs": inputs}))


def test_a_checkpoint_that_lost_its_scaling_is_refused(run_dir: Path) -> None:
    """A field failure: a model was published with an unscaled config."""
    path = run_dir / "train" / "model" / "config.json"
    config = json.loads(path.read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4}
    path.write_text(json.dumps(config))
    with pytest.raises(
        ProofError, match=r"rope proof after export: model\.rotary_emb\.inv_freq\[\d\]"
    ):
        stage.run(configured("off"), INPUTS, run_dir / "export")
    assert not (run_dir / "export").exists()


@pytest.mark.parametrize(
    "rope", [PIConfig(factor=8.0), Llama3Config(factor=8.0), YARN], ids=lambda r: r.method
)
def test_a_lost_scaling_in_bf16_is_refused(
    rope: RopeConfig, tiny: Callable[..., Any], trained: Callable[..., Any], tmp_path: Path
) -> None:
    folder, plan = trained(tiny("llama"), rope)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "bf16")
    assert "after export" in hf_folder.prove(tmp_path / "bf16", plan)
    path = tmp_path / "bf16" / "config.json"
    unscaled = {"rope_type": "default", "rope_theta": 1e4}
    path.write_text(json.dumps({**json.loads(path.read_text()), "rope_parameters": unscaled}))
    with pytest.raises(
        ProofError, match=r"rope proof after export: model\.rotary_emb\.inv_freq\[\d\]"
    ):
        hf_folder.prove(tmp_path / "bf16", plan)
    with pytest.raises(
        ProofError, match=r"rope proof after reload: model\.rotary_emb\.inv_freq\[\d\]"
    ):
        load_trained(tmp_path / "bf16", plan, dtype=torch.bfloat16)


def test_the_window_of_the_base_in_the_config_is_refused(run_dir: Path) -> None:
    """The table would be right, and every server would cut texts at the base's 256 tokens."""
    path = run_dir / "train" / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_position_embeddings": 256}))
    with pytest.raises(
        ProofError, match="config.json has max_position_embeddings 256; the plan has 2048"
    ):
        stage.run(configured("off"), INPUTS, run_dir / "export")


def test_a_missing_package_is_refused_before_any_work(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stage.importlib.util.find_spec

    def find_spec(name: str, *args: Any) -> Any:
        return None if name == "gguf" else real(name, *args)

    monkeypatch.setattr(stage.importlib.util, "find_spec", find_spec)
    with pytest.raises(
        ConfigError,
        match=r"export\.gguf is f16; it needs one more package; pip install 'ropewalk\[gguf\]'",
    ):
        stage.run(configured(), INPUTS, run_dir / "export")
    stage.run(configured("off"), INPUTS, run_dir / "export")


def test_the_gguf_setting_has_four_values() -> None:
    assert not list(problems(ExportConfig())) and not list(problems(ExportConfig(gguf="off")))
    assert list(problems(ExportConfig(gguf="q4"), "export.")) == [
        "export.gguf is q4; it must be one of f32, f16, bf16, off; choose one"
    ]
