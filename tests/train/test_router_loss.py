"""The router's loss of mixtures of experts, against transformers' own loss of the same batch."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranks
import router_ranks
import torch
import transformers
from architectures import small_model
from feeds import config
from models import documents
from plans import written
from router_ranks import SEQUENCES, Cell, Step

from ropewalk.conf.errors import ConfigError
from ropewalk.data.dataset import DataArtifacts, collate, concatenate
from ropewalk.train import attention, router_loss
from ropewalk.train.loop.micro_batches import to_device
from ropewalk.train.loss_model import LossModel
from ropewalk.train.router_loss import RouterLoss

SEQ_LEN = 24
LENGTHS = [24, 13, 20, 7]
"""Of the documents, one a sequence; the rest is padding."""
MIXTRAL: dict[str, Any] = {
    "num_hidden_layers": 2,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "output_router_logits": True,
    "router_aux_loss_coef": 0.5,
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
MODELS: dict[str, dict[str, Any]] = {
    "Mixtral": MIXTRAL,
    "Olmoe": {**MIXTRAL, **EXPERTS, "head_dim": 8},
    "Qwen2Moe": {**MIXTRAL, **EXPERTS, "shared_expert_intermediate_size": 16},
    "Qwen3Moe": {**MIXTRAL, **EXPERTS, "decoder_sparse_step": 2},
    "GptOss": MIXTRAL,
    "FlexOlmo": {**MIXTRAL, **EXPERTS, "head_dim": 8},
    "GraniteMoe": MIXTRAL,
    "Ernie4_5_Moe": {**MIXTRAL, "moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 16},
    "MiniMaxM2": MIXTRAL,
}


def texts() -> list[np.ndarray]:
    return documents(LENGTHS, seed=3)


def batch() -> dict[str, torch.Tensor]:
    """The four sequences as transformers takes them: padded on the right, with a mask."""
    ids = torch.zeros(SEQUENCES, SEQ_LEN, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts()):
        ids[row, : len(text)] = torch.from_numpy(text)
        mask[row, : len(text)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}


@cache
def by_transformers(kind: str) -> tuple[float, float, dict[str, np.ndarray]]:
    """Cross-entropy, weighted router's loss, and the gradient of their sum."""
    model = small_model(kind, MODELS[kind]).train()
    model.set_attn_implementation("eager")
    output = model(**batch(), use_cache=False)
    output.loss.backward()
    router = MODELS[kind]["router_aux_loss_coef"] * float(output.aux_loss.detach())
    named = [(name, p) for name, p in model.named_parameters() if p.grad is not None]
    gradients = {name: p.grad.double().numpy().copy() for name, p in named}
    return float(output.loss.detach()) - router, router, gradients


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataArtifacts:
    rows = [[(number, 0, length)] for number, length in enumerate(LENGTHS)]
    folder: Path = tmp_path_factory.mktemp("plan")
    return written(folder, texts(), rows, seq_len=SEQ_LEN)


def refuse_other_step(step: Step, kind: str) -> None:
    cross_entropy, router, gradients = by_transformers(kind)
    assert step.line["loss"] == pytest.approx(cross_entropy, rel=2e-6)
    assert step.line["router_loss"] == pytest.approx(router, rel=1e-6)
    for name, expected in gradients.items():
        apart = np.linalg.norm(step.gradients[name] - expected)
        assert apart <= 2e-6 * max(np.linalg.norm(expected), 1e-3), name


# data parallel, Ulysses, accumulation, checkpointing, every stage
CELLS = {
    1: [Cell(1, 0, 1), Cell(1, 2, 4), Cell(1, 1, 2, True), Cell(1, 3, 2, True)],
    2: [Cell(1, 1, 1), Cell(1, 3, 2), Cell(2, 3, 1, True), Cell(2, 2, 4)],
}


@pytest.mark.parametrize("world", CELLS)
def test_loss_and_gradients_are_transformers_at_any_degree(world: int, data: DataArtifacts) -> None:
    steps = ranks.run(
        world, router_ranks.run_cells, "Mixtral", MIXTRAL, CELLS[world], config(), data
    )
    for step in steps[0]:
        refuse_other_step(step, "Mixtral")


@pytest.mark.parametrize("kind", list(MODELS)[1:])
def test_each_architecture_has_transformers_own_loss(kind: str) -> None:
    model = small_model(kind, MODELS[kind])
    model.set_attn_implementation(attention.register("sdpa"))
    loss = router_loss.router_loss_of(model, None)
    assert loss is not None
    router_loss.prove(model, loss)
    wrapped = LossModel(model, router_loss=loss).train()
    row = collate([concatenate([text], SEQ_LEN) for text in texts()])
    is_text = torch.from_numpy(np.concatenate([np.arange(SEQ_LEN) < n for n in LENGTHS]))
    labels = sum(LENGTHS) - len(LENGTHS)
    wrapped(**to_device(row), total_labels=labels, is_text=is_text).backward()
    line = {"loss": float(wrapped.cross_entropy), "router_loss": float(wrapped.router_part)}
    named = model.named_parameters()
    gradients = {name: p.grad.double().numpy() for name, p in named if p.grad is not None}
    refuse_other_step(Step(line, gradients), kind)


def test_a_loss_of_another_form_is_refused_before_a_model_is_built() -> None:
    doge = transformers.DogeConfig(output_router_logits=True, is_moe=True)
    (line,) = router_loss.config_problems(doge, None)
    assert "doge" in line and "train.loss.router_aux_loss_coef=0" in line
    assert not router_loss.config_problems(doge, 0.0)


def test_the_setting_decides_over_the_config() -> None:
    asked, silent = (
        small_model("Mixtral", {**MIXTRAL, "output_router_logits": flag}) for flag in (True, False)
    )
    assert router_loss.router_loss_of(silent, None) is None
    assert router_loss.router_loss_of(asked, 0.0) is None
    chosen = router_loss.router_loss_of(silent, 0.25)
    assert chosen is not None and chosen.coefficient == 0.25
    with pytest.raises(ConfigError, match="router_aux_loss_coef is 0.25; transformers computes no"):
        router_loss.router_loss_of(small_model("Llama", {}), 0.25)


def test_a_loss_that_is_not_the_model_s_own_is_refused() -> None:
    model = small_model("Mixtral", MIXTRAL)
    with pytest.raises(ConfigError, match="its own load-balancing loss is"):
        router_loss.prove(model, RouterLoss(0.5, num_experts=4, top_k=1))
