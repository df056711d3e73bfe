"""Adapters under ZeRO against peft and transformers in one process."""

import json
from pathlib import Path
from typing import Any

import lora_ranks
import peft
import pytest
import ranks
import torch
from feeds import batch_loss
from models import tiny_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

NORMS = ["input_layernorm", "post_attention_layernorm", "norm"]
UNTIED = {"tie_word_embeddings": False}
PLUS = {"rank": 4, "embeddings": True, "norms": True}
LINEAR = {"rank": 4, "alpha": 3.0, "targets": "all-linear", "rslora": True}
DORA = {"rank": 2, "targets": ["q_proj", "down_proj"], "dora": True}


def peft_model(lora: dict[str, Any], changes: dict[str, Any]) -> Any:
    """The same adapter by peft alone: copies of embeddings and norms, tied heads on request."""
    model = tiny_model(**changes)
    tied = model.config.tie_word_embeddings
    targets = lora.get("targets", ["q_proj", "k_proj", "v_proj", "o_proj"])
    saved = ["embed_tokens"] * lora.get("embeddings", False) + NORMS * lora.get("norms", False)
    wrapped = peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=lora["rank"],
            lora_alpha=lora.get("alpha", 2 * lora["rank"]),
            target_modules=targets,
            use_rslora=lora.get("rslora", False),
            use_dora=lora.get("dora", False),
            modules_to_save=saved or None,
            ensure_weight_tying=bool(lora.get("embeddings") and tied),
            task_type="CAUSAL_LM",
        ),
    )
    start, values = lora_ranks.build_adapted(lora, changes).state_dict(), wrapped.state_dict()
    with torch.no_grad():
        for name, value in values.items():
            if "lora_" in name:
                value.copy_(start[name.removeprefix("base_model.model.")])
    return wrapped.eval()


def base_name(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")


@pytest.mark.parametrize(
    ("lora", "changes", "train"),
    [
        pytest.param(LINEAR, {}, {"zero_stage": 0}, marks=pytest.mark.slow),
        (PLUS, UNTIED, {"zero_stage": 1}),
        pytest.param(
            LINEAR,
            UNTIED,
            {
                "zero_stage": 2,
                "memory__activation_checkpointing": True,
                "memory__tile_mlp_tokens": 16,
            },
            marks=pytest.mark.slow,
        ),
        (
            PLUS,
            {},
            {
                "zero_stage": 3,
                "memory__activation_checkpointing": True,
                "memory__offload_activations": True,
            },
        ),
        (DORA, {}, {"zero_stage": 3}),
        pytest.param(PLUS, UNTIED, {"zero_stage": 3, "sp_size": 2}, marks=pytest.mark.slow),
        (LINEAR, {}, {"zero_stage": 3, "sp_size": 2, "memory__tile_mlp_tokens": 16}),
    ],
)
def test_gradients_of_two_ranks_equal_those_of_peft(
    lora: dict[str, Any], changes: dict[str, Any], train: dict[str, Any]
) -> None:
    shared = train.get("sp_size", 1)
    results = ranks.run(2, lora_ranks.gradients, train, lora, changes, 2 * shared)
    model = peft_model(lora, changes)
    batch_loss(model, 0, 4).backward()
    expected = {base_name(name): p.grad for name, p in model.named_parameters() if p.requires_grad}
    for gradients in results:
        assert gradients.keys() == expected.keys()
        for name, gradient in gradients.items():
            error = (torch.from_numpy(gradient) - expected[name]).norm() / expected[name].norm()
            assert float(error) < 1e-5, (name, float(error))


@pytest.mark.parametrize(
    ("stage", "lora", "changes"),
    [
        (3, PLUS, {}),
        pytest.param(3, PLUS, UNTIED, marks=pytest.mark.slow),
        pytest.param(3, DORA, UNTIED, marks=pytest.mark.slow),
        (1, LINEAR, {}),
    ],
)
def test_the_saved_adapter_and_the_merged_model_equal_the_live_model(
    tmp_path: Path, stage: int, lora: dict[str, Any], changes: dict[str, Any]
) -> None:
    results = ranks.run(
        2, lora_ranks.train_and_save, str(tmp_path), 2, {"zero_stage": stage}, lora, changes
    )
    live = torch.from_numpy(results[0]["logits"])
    assert (results[0]["local_parameters"] == 0) == (stage == 3)
    assert "queries and keys of 2 layers" in results[0]["proof"]

    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    expected = peft.utils.get_peft_model_state_dict(
        peft_model(lora, changes), save_embedding_layers=False
    )
    assert {n: t.shape for n, t in tensors.items()} == {n: t.shape for n, t in expected.items()}

    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(tiny_model(**changes), tmp_path / "adapter").eval()
    ids = torch.arange(40)[None]
    with torch.no_grad():
        for model in (merged, adapted):
            torch.testing.assert_close(model(input_ids=ids).logits[0], live, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(tiny_model(**changes)(input_ids=ids).logits[0], live, atol=1e-2)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny" and config["target_modules"] == sorted(
        config["target_modules"]
    )
    assert not any(str(tmp_path) in file.read_text() for file in tmp_path.rglob("*.json"))


def test_in_bf16_the_merged_model_equals_the_live_model_up_to_rounding(tmp_path: Path) -> None:
    train = {"zero_stage": 3, "precision": "bf16"}
    live = torch.from_numpy(
        ranks.run(2, lora_ranks.train_and_save, str(tmp_path), 2, train, PLUS, {})[0]["logits"]
    )
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype="auto")
    assert merged.dtype == torch.bfloat16
    with torch.no_grad():
        logits = merged(input_ids=torch.arange(40)[None]).logits[0].float()
        base_logits = tiny_model()(input_ids=torch.arange(40)[None]).logits[0]
    assert (logits - live).norm() / live.norm() < 2e-2 < (base_logits - live).norm() / live.norm()
    assert {t.dtype for t in load_file(tmp_path / "model" / "model.safetensors").values()} == {
        torch.bfloat16
    }


@pytest.mark.parametrize(
    "stage", [*(pytest.param(n, marks=pytest.mark.slow) for n in (0, 1, 2)), 3]
)
def test_an_adapter_resumes_bit_for_bit_from_a_checkpoint_without_the_base(
    tmp_path: Path, stage: int
) -> None:
    lora = {"rank": 4, "norms": True, "dropout": 0.1}
    train = {"zero_stage": stage}
    results = ranks.run(2, lora_ranks.resumed, str(tmp_path), train, train, lora)[0]
    assert results["resumed"]["losses"] == results["uninterrupted"]["losses"][2:]
    for name, weight in results["uninterrupted"]["weights"].items():
        assert (weight == results["resumed"]["weights"][name]).all(), name
    assert results["saved"] and all("lora_" in name or "norm" in name for name in results["saved"])


def test_an_adapter_resumes_under_another_stage(tmp_path: Path) -> None:
    results = ranks.run(
        2, lora_ranks.resumed, str(tmp_path), {"zero_stage": 3}, {"zero_stage": 1}, {"rank": 4}
    )[0]
    assert results["resumed"]["losses"] == pytest.approx(
        results["uninterrupted"]["losses"][2:], rel=1e-5
    )


def test_the_initial_matrices_depend_on_the_seed_alone() -> None:
    lora = {"rank": 4}
    two, single, other = (
        ranks.run(n, lora_ranks.initial_adapter, lora, seed) for n, seed in ((2, 1), (1, 1), (1, 2))
    )
    for name, value in single[0].items():
        assert (value == two[0][name]).all() and (value == two[1][name]).all()
        assert (value == other[0][name]).all() == ("lora_B" in name)


@pytest.mark.parametrize(
    ("train", "lora", "message"),
    [
        (
            {},
            {"rank": 4, "targets": ["q_pro", "v_proj", "zzz"]},
            "ConfigError: train.lora.targets is q_pro; it must match a linear layer of the model "
            "that is not its head; did you mean q_proj or v_proj or o_proj?; or attention, "
            "all-linear\n"
            "train.lora.targets is zzz; it must match a linear layer of the model that is not its "
            "head; names are made of q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, "
            "down_proj; or attention, all-linear",
        ),
        (
            {},
            {"rank": 4, "targets": ["lm_head"]},
            "ConfigError: train.lora.targets is lm_head; it must match a linear layer of the model "
            "that is not its head; ",
        ),
        (
            {"optimizer__trainable": ["q_proj"]},
            {"rank": 4},
            "ConfigError: train.optimizer.trainable names weights of "
            "model.layers.0.self_attn.q_proj; with LoRA it must name modules that have no adapter "
            "and none inside; ",
        ),
    ],
)
def test_targets_without_a_linear_layer_are_refused(
    train: dict[str, Any], lora: dict[str, Any], message: str
) -> None:
    (results,) = ranks.run(1, lora_ranks.adapter_error, train, lora)
    assert results.startswith(message)
