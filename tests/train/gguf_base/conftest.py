"""A tiny model as Hugging Face folder and as GGUF file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ropewalk.conf.rope_methods import RopeConfig


@dataclass
class Pair:
    """The same model twice."""

    hf: Path
    gguf: Path
    plan: Any


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Callable[..., Pair]:
    """Made once for each method; weights large enough that attention depends on position."""
    pytest.importorskip("gguf")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from ropewalk.train.export import stage
    from ropewalk.train.rope import plan as rope_plan

    made: dict[str, Pair] = {}
    sizes = {
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 256,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }

    def make(rope: RopeConfig | None = None, kind: str = "llama", **changes: Any) -> Pair:
        rope, name = rope or RopeConfig(), f"{kind} {rope} {changes}"
        if name not in made:
            folder = tmp_path_factory.mktemp("pair")
            config = AutoConfig.for_model(kind, **{**sizes, **changes})
            plan = rope_plan.make(rope, config, "tiny")
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(rope_plan.apply(plan, config))
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(6)
            model.save_pretrained(folder / "model")
            tokenizer.save_pretrained(folder / "model")
            stage.export_model(folder / "model", plan, folder / "export", "tiny", "f32", None)
            export = folder / "export"
            made[name] = Pair(export / "hf", export / "model-f32.gguf", plan)
        return made[name]

    return make
