"""Architectures with windows, sinks and shared heads: packed documents against each one alone.

The reference is transformers' eager attention.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from architectures import small_model
from models import documents, packed

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rope_methods import YarnConfig
from ropewalk.train import attention
from ropewalk.train.attention import isolation
from ropewalk.train.attention.support import Requirements
from ropewalk.train.base import Base, base_config
from ropewalk.train.model import build as models
from ropewalk.train.model.geometry import head_dim, value_dim
from ropewalk.train.rope import plan as rope_plan

LENGTHS = [13, 1, 40, 7, 30, 5]
MIXED = {
    "layer_types": ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
MODELS: dict[str, tuple[str, dict[str, Any], int]] = {
    "mistral": ("Mistral", {"sliding_window": 6}, 4),
    "mixtral": ("Mixtral", {"sliding_window": 6, **EXPERTS}, 4),
    "qwen 2": (
        "Qwen2",
        {"sliding_window": 6, "use_sliding_window": True, "max_window_layers": 2},
        2,
    ),
    "qwen 2, windows off": ("Qwen2", {"sliding_window": 6, "use_sliding_window": False}, 0),
    "gemma 3": ("Gemma3Text", {"sliding_window": 7, **MIXED}, 3),
    "olmo 3": ("Olmo3", {"sliding_window": 6, **MIXED}, 3),
    "gpt-oss": ("GptOss", {"sliding_window": 6, **MIXED, **EXPERTS}, 3),
    "ministral": ("Ministral", {"sliding_window": 6, **MIXED}, 3),
    "phi 3": ("Phi3", {"sliding_window": 6}, 4),
    "starcoder 2": ("Starcoder2", {"sliding_window": 6}, 4),
}


def losses(model: Any, ids: torch.Tensor, labels: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    logits = model(input_ids=ids[None], use_cache=False, **kwargs).logits[0]
    return F.cross_entropy(logits, labels, reduction="none", ignore_index=-100)


@pytest.mark.parametrize("name", MODELS)
def test_packed_windows_have_the_losses_and_gradients_of_each_document_alone(name: str) -> None:
    kind, changes, _ = MODELS[name]
    model = small_model(kind, changes)
    pieces = documents(LENGTHS)
    model.set_attn_implementation("eager")
    alone = []
    for piece in pieces:
        ids = torch.from_numpy(piece)
        alone.append(losses(model, ids, torch.cat([ids[1:], torch.tensor([-100])])))
    expected = torch.cat(alone)
    parameters = [p for p in model.parameters() if p.requires_grad]
    expected_gradients = torch.autograd.grad(expected.sum(), parameters, allow_unused=True)
    row, _ = packed(LENGTHS, sum(LENGTHS))
    model.set_attn_implementation(attention.register("sdpa"))
    borders = attention.document_borders(torch.from_numpy(row.cu_seqlens))
    ids, positions, labels = (
        torch.from_numpy(x) for x in (row.input_ids, row.position_ids, row.labels)
    )
    nll = losses(model, ids, labels, position_ids=positions[None], **borders)
    torch.testing.assert_close(nll, expected, atol=2e-5, rtol=1e-5)
    packed_gradients = torch.autograd.grad(nll.sum(), parameters, allow_unused=True)
    for a, b in zip(packed_gradients, expected_gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert (a - b).norm() <= 1e-4 * b.norm() + 1e-6


@pytest.mark.parametrize("name", MODELS)
def test_windows_reach_the_kernel_and_documents_are_proved_isolated(name: str) -> None:
    kind, changes, sliding = MODELS[name]
    model = small_model(kind, changes)
    attention.refuse_unsupported(model.config, name)
    original_impl = model.config._attn_implementation
    attention.prove_documents_isolated(model)
    assert model.config._attn_implementation == original_impl and not model.training
    kinds = getattr(model.config, "layer_types", None)
    assert sliding == (kinds.count("sliding_attention") if kinds else 4)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("Qwen2Moe", {"use_sliding_window": True, "max_window_layers": 2}), ("Phimoe", {})],
)
def test_a_window_that_stays_in_the_mask_is_refused(kind: str, changes: dict[str, Any]) -> None:
    """Their code in transformers applies it in the mask only: a fused kernel would ignore it."""
    experts = {
        "num_experts": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    }
    model = small_model(kind, {"sliding_window": 6, **experts, **changes})
    with pytest.raises(
        ConfigError,
        match="is a sliding-window layer and its code gives its attention kernel the window None",
    ):
        attention.prove_documents_isolated(model)


def test_a_model_that_mixes_tokens_outside_its_attention_is_refused() -> None:
    """A convolution over the sequence carries the end of a document into the next one."""
    model = small_model("Llama", {})
    layer = model.model.layers[1].mlp

    def mix(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output + 0.1 * torch.roll(output, 1, dims=1)

    attention.prove_documents_isolated(model)
    layer.register_forward_hook(mix)
    with pytest.raises(
        ConfigError,
        match="a document changes the hidden states of the next one by .*choose another model",
    ):
        attention.prove_documents_isolated(model)


@pytest.mark.parametrize(
    ("name", "changes"),
    [("Cohere", {"logit_scale": 0.25}), ("Granite", {"logits_scaling": 4.0}), ("Llama", {})],
)
def test_logits_that_are_more_than_hidden_states_times_the_head_are_refused(
    name: str, changes: dict[str, Any]
) -> None:
    """The model's output decides: the last case has no key in its config, only code."""
    model = small_model(name, changes)
    if name == "Llama":
        attention.prove_documents_isolated(model)
        model.lm_head.register_forward_hook(
            lambda module, args, logits: 30 * torch.tanh(logits / 30)
        )
    with pytest.raises(ConfigError, match="its logits are not its hidden states times its head"):
        attention.prove_documents_isolated(model)


def test_the_proof_of_documents_fails_without_borders(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model("Llama", {})
    monkeypatch.setattr(isolation, "document_borders", lambda cu, device: {})
    with pytest.raises(ConfigError, match="a document changes the hidden states of the next one"):
        attention.prove_documents_isolated(model)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "gemma 2": (
        "Gemma2",
        {},
        "gemma2 soft-caps its attention scores .attn_logit_softcapping 50.0.",
    ),
    "llama 4": ("Llama4Text", {}, "llama4_text has layers of chunked_attention; "),
    "qwen 3 next": ("Qwen3Next", {}, "qwen3_next has layers of linear_attention; "),
    "lfm 2": (
        "Lfm2",
        {"num_hidden_layers": 4, "layer_types": ["conv", "full_attention"] * 2},
        "lfm2 has layers of conv; ",
    ),
    "t5": ("T5", {}, "t5 is an encoder-decoder"),
    "nemotron": ("Nemotron", {}, "nemotron does not hand the borders of documents"),
    "stable lm": ("StableLm", {}, "stablelm does not hand the borders of documents"),
    "gemma 3, both ways": (
        "Gemma3Text",
        {"use_bidirectional_attention": True},
        "gemma3_text looks ahead",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_unsupported_architecture_is_refused_by_name(name: str) -> None:
    kind, changes, message = REFUSED[name]
    config = getattr(transformers, f"{kind}Config")(**changes)
    with pytest.raises(ConfigError, match=f"model.path is the-model; its architecture {message}"):
        attention.refuse_unsupported(config, "the-model")


def test_requirements_are_read_from_the_model() -> None:
    llama, gpt_oss = small_model("Llama", {}), small_model("GptOss", {**MIXED, **EXPERTS})
    expected = Requirements(torch.float32, 16, False, 16)
    assert attention.requirements_of(llama, torch.float32) == expected
    assert attention.requirements_of(gpt_oss, torch.bfloat16).sinks
    deepseek = transformers.DeepseekV3Config(
        qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128
    )
    assert (head_dim(deepseek), value_dim(deepseek)) == (192, 128)


@pytest.mark.parametrize("name", ["gemma 3", "olmo 3", "gpt-oss"])
def test_a_windowed_base_is_built_as_the_trainer_builds_it(name: str, tmp_path: Path) -> None:
    """Read from its folder, rescaled and proved, its packed losses equal each document's alone."""
    kind, changes, _ = MODELS[name]
    if name == "gpt-oss":
        yarn = {
            "rope_type": "yarn",
            "rope_theta": 1e4,
            "factor": 2.0,
            "original_max_position_embeddings": 64,
        }
        changes = {**changes, "rope_parameters": {**yarn, "truncate": False}}
    small_model(kind, changes).save_pretrained(tmp_path)
    base = Base(str(tmp_path))
    plan = rope_plan.make(YarnConfig(factor=8.0), base_config(base), name)
    model: Any = models.build(
        base, plan, dtype=torch.float32, attention_kernel="auto", compute_dtype=torch.float32
    ).eval()
    assert attention.describe(model.config._attn_implementation).startswith("sdpa")
    row, pieces = packed(LENGTHS, sum(LENGTHS))
    borders = attention.document_borders(torch.from_numpy(row.cu_seqlens))
    ids, positions, labels = (
        torch.from_numpy(x) for x in (row.input_ids, row.position_ids, row.labels)
    )
    with torch.no_grad():
        nll = losses(model, ids, labels, position_ids=positions[None], **borders)
        model.set_attn_implementation("eager")
        last = torch.tensor([-100])
        alone = [losses(model, x, torch.cat([x[1:], last])) for x in map(torch.from_numpy, pieces)]
    torch.testing.assert_close(nll, torch.cat(alone), atol=2e-5, rtol=1e-5)
