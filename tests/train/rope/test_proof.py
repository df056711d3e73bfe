"""The proof passes a model built from the plan; each known accident is named with its place."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from ropewalk.conf.errors import ProofError
from ropewalk.conf.rope_methods import (
    Llama3Config,
    NTKConfig,
    PIConfig,
    RopeConfig,
    Table,
    YarnConfig,
)
from ropewalk.train.rope import layer_proof, plan, probe, proof
from ropewalk.train.rope.plan import RopePlan

MODULE = "model.rotary_emb"


def base() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
    )


def planned(rope: RopeConfig | None = None) -> RopePlan:
    return plan.make(rope or YarnConfig(factor=8.0), base(), "tiny")


def built(config: Any = None) -> LlamaForCausalLM:
    return LlamaForCausalLM(plan.apply(planned(), base()) if config is None else config)


def refused(model: nn.Module, message: str, rope: RopePlan | None = None) -> str:
    with pytest.raises(ProofError, match=message) as error:
        proof.prove(model, rope or planned(), "in the test")
    assert "rope proof in the test" in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "rope", [RopeConfig(), PIConfig(factor=4.0), NTKConfig(factor=4.0), YarnConfig(factor=64.0)]
)
def test_a_model_built_from_the_plan_passes(rope: RopeConfig) -> None:
    rope_plan = planned(rope)
    message = proof.prove(built(plan.apply(rope_plan, base())), rope_plan, "after construction")
    assert "1 rotary module(s)" in message and rope_plan.hash[:12] in message


def test_the_positions_of_the_proof_lie_on_both_sides_of_the_original_window() -> None:
    """By hand for 256 tokens extended to 2048: 85 is a third of it, 1151 halfway to 2047."""
    assert probe.probe_positions(planned()) == [0, 1, 2, 85, 255, 256, 1151, 2047]


def test_an_untruncated_ramp_at_a_large_factor_passes() -> None:
    """transformers computes the ramp in fp32: its table is 5e-6 off by rounding."""
    config = LlamaConfig(
        hidden_size=512,
        num_attention_heads=2,
        max_position_embeddings=32_768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
    )
    rope_plan = plan.make(YarnConfig(factor=64.0, truncate=False), config, "tiny")
    module = LlamaRotaryEmbedding(plan.apply(rope_plan, config))
    assert "hold the plan" in proof.prove(module, rope_plan, "in the test")


def test_a_config_changed_after_construction_is_refused() -> None:
    model = built(base())
    plan.apply(planned(), model.config)
    message = refused(model, rf"{MODULE}\.inv_freq\[\d+\] is .*; the plan has")
    first = next(
        i
        for i, f in enumerate(planned().inv_freq)
        if f != pytest.approx(10_000 ** (-2 * i / 16), rel=1e-6)
    )
    assert f"inv_freq[{first}]" in message and "was not built from the plan" in message


def test_a_lost_theta_is_refused() -> None:
    config: Any = base()
    config.rope_parameters["rope_theta"] = 500_000.0
    rope_plan = plan.make(YarnConfig(factor=8.0), config, "tiny")
    applied: Any = plan.apply(rope_plan, base())
    applied.rope_parameters["rope_theta"] = 10_000.0
    refused(built(applied), rf"{MODULE}\.inv_freq\[1\]", rope_plan)


def test_the_new_window_in_place_of_the_original_one_is_refused() -> None:
    config: Any = plan.apply(planned(), base())
    config.rope_parameters["original_max_position_embeddings"] = 2048
    refused(built(config), rf"{MODULE}\.inv_freq\[\d\]")


def test_a_table_in_bf16_is_refused_until_it_is_restored() -> None:
    model = built().to(torch.bfloat16)
    refused(model, rf"{MODULE}\.inv_freq is torch\.bfloat16; it must be float32")
    proof.restore(model, planned())
    assert "hold the plan" in proof.prove(model, planned(), "after restoring")


@pytest.mark.parametrize(
    "rope",
    [PIConfig(factor=8.0), NTKConfig(factor=8.0), Llama3Config(factor=8.0), YarnConfig(factor=8.0)],
)
def test_restore_does_not_repair_a_lost_scaling(rope: RopeConfig) -> None:
    """A proof of a table that was just written from the plan would prove nothing."""
    rope_plan, lost = planned(rope), built(base()).to(torch.bfloat16)
    proof.restore(lost, rope_plan)
    refused(lost, r"inv_freq is torch\.bfloat16", rope_plan)
    loaded: Any = built(base())
    proof.restore(loaded, rope_plan)
    refused(loaded, rf"{MODULE}\.inv_freq\[\d\]", rope_plan)
    right = built(plan.apply(rope_plan, base())).to(torch.bfloat16)
    proof.restore(right, rope_plan)
    assert "hold the plan" in proof.prove(right, rope_plan, "after a cast")


def test_a_layer_that_does_not_call_its_kernel_is_named() -> None:
    """The proof cannot see the positions in a fused attention that was patched in."""
    model: Any = built()
    attention = model.model.layers[1].self_attn
    attention.forward = lambda hidden_states, **kwargs: (
        attention.o_proj(attention.q_proj(hidden_states)),
        None,
    )
    refused(model, r"layer\(s\) 1 did not ask for an attention kernel")


def test_a_rotation_in_another_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama rotates halves; pairs of neighbours, in keys alone or in both, are another model."""
    from transformers.models.llama import modeling_llama

    def neighbours(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        half = cos.shape[-1] // 2
        return layer_proof.rotate_interleaved(x, cos[:, None, :, :half], sin[:, None, :, :half])

    real = modeling_llama.apply_rotary_pos_emb
    model = built()
    for in_both in (False, True):

        def mixed(q: Any, k: Any, cos: Any, sin: Any, *rest: Any, in_both: bool = in_both) -> Any:
            query = neighbours(q, cos, sin) if in_both else real(q, k, cos, sin)[0]
            return query, neighbours(k, cos, sin)

        monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", mixed)
        name = "query" if in_both else "key"
        refused(model, f"layer 0 rotates its {name} otherwise than the plan")


def test_a_table_that_went_through_bf16_is_refused() -> None:
    model = built().to(torch.bfloat16).to(torch.float32)
    refused(model, rf"{MODULE}\.inv_freq\[\d\]")


@pytest.mark.parametrize("wrong", [1.0, 1.21])
def test_a_dropped_attention_factor_is_refused(wrong: float) -> None:
    model: Any = built()
    model.model.rotary_emb.attention_scaling = wrong
    refused(model, rf"{MODULE}\.attention_scaling is {wrong:g}; the plan has 1\.2079")


@pytest.mark.parametrize("index", [0, 3, 7])
def test_one_wrong_dimension_is_named(index: int) -> None:
    model: Any = built()
    model.model.rotary_emb.inv_freq[index] *= 1.0001
    assert f"1 of {len(planned().inv_freq)} dimensions differ" in refused(
        model, rf"{MODULE}\.inv_freq\[{index}\]"
    )


def test_a_table_of_another_size_is_refused() -> None:
    config: Any = base()
    config.head_dim = 32
    refused(built(plan.apply(planned(), config)), "has 16 dimensions; the plan has 8")


def test_a_model_without_a_rotary_module_is_refused() -> None:
    refused(nn.Linear(2, 2), "no module with inv_freq")


def positions_of_the_base(module: Any) -> Callable[..., Any]:
    """cos and sin of an unscaled table, as in a fused kernel that was set up before the scaling."""
    table = 10_000 ** (-torch.arange(0, 16, 2) / 16)

    def forward(x: torch.Tensor, position_ids: torch.Tensor) -> Any:
        angle = torch.cat([position_ids[..., None].float() * table] * 2, dim=-1)
        return angle.cos() * module.attention_scaling, angle.sin() * module.attention_scaling

    return forward


def wrapped_positions(module: Any) -> Callable[..., Any]:
    real = module.forward
    return lambda x, position_ids: real(x, position_ids % 256)


def without_the_attention_factor(module: Any) -> Callable[..., Any]:
    real, factor = module.forward, module.attention_scaling
    return lambda x, position_ids: tuple(part / factor for part in real(x, position_ids))


def swapped(module: Any) -> Callable[..., Any]:
    real = module.forward
    return lambda x, position_ids: real(x, position_ids)[::-1]


@pytest.mark.parametrize(
    "broken", [positions_of_the_base, wrapped_positions, without_the_attention_factor, swapped]
)
def test_a_module_that_ignores_its_table_is_refused(
    broken: Callable[[Any], Callable[..., Any]],
) -> None:
    model: Any = built()
    model.model.rotary_emb.forward = broken(model.model.rotary_emb)
    refused(model, rf"{MODULE} gives another (cos|sin) at position \d+ than the plan")


def test_a_wrong_second_half_of_cos_is_refused() -> None:
    """Llama's cos and sin hold the table twice; rotate_half reads both halves."""
    model: Any = built()
    real = model.model.rotary_emb.forward

    def forward(x: torch.Tensor, position_ids: torch.Tensor) -> Any:
        cos, sin = real(x, position_ids)
        return torch.cat([cos[..., :8], cos[..., 8:] * 0], dim=-1), sin

    model.model.rotary_emb.forward = forward
    refused(model, rf"{MODULE} gives another cos")


def test_every_rotary_module_is_checked() -> None:
    model: Any = built()
    model.second = built(base()).model.rotary_emb
    refused(model, r"second\.inv_freq\[\d\]")


def test_queries_and_keys_of_every_layer_are_checked() -> None:
    assert "queries and keys of 3 layers" in proof.prove(built(), planned(), "in the test")


@pytest.mark.parametrize("layer", [0, 2])
def test_a_layer_with_another_rotation_is_named(layer: int) -> None:
    """The module is right, but one layer does not use it: a kernel patched before the scaling."""
    model: Any = built()
    stale, attention = LlamaRotaryEmbedding(base()), model.model.layers[layer].self_attn
    real = attention.forward

    def forward(*args: Any, position_embeddings: Any, **kwargs: Any) -> Any:
        x = kwargs["hidden_states"]
        positions = torch.tensor([probe.probe_positions(planned())])
        if bool((position_embeddings[1] != 0).any()):
            position_embeddings = stale(x, positions)
        return real(*args, position_embeddings=position_embeddings, **kwargs)

    attention.forward = forward
    message = refused(
        model, rf"layer {layer} rotates its query otherwise than the plan, first in dimension \d"
    )
    assert "does not reach it" in message


def test_a_layer_that_drops_the_attention_factor_is_named() -> None:
    """YaRN's frequencies without its factor: the table is right, the scores are wrong."""
    model: Any = built()
    attention = model.model.layers[1].self_attn
    real = attention.forward

    def forward(*args: Any, position_embeddings: Any, **kwargs: Any) -> Any:
        cos, sin = position_embeddings
        factor = planned().attention_factor if bool((sin != 0).any()) else 1.0
        return real(*args, position_embeddings=(cos / factor, sin / factor), **kwargs)

    attention.forward = forward
    refused(model, "layer 1 rotates its query otherwise than the plan, first in dimension 0")


def test_the_proof_leaves_the_model_unchanged() -> None:
    model = built().train()
    ids = torch.arange(20)[None]
    original_logits, kernel = model(input_ids=ids).logits, model.config._attn_implementation
    proof.prove(model, planned(), "in the test")
    assert model.training and model.config._attn_implementation == kernel
    assert torch.equal(model(input_ids=ids).logits, original_logits)


def test_an_adapter_merged_into_an_unscaled_base_is_refused(tmp_path: Any) -> None:
    """LongLoRA's issue 181: the merge loaded the base unscaled, and so it was published."""
    peft = pytest.importorskip("peft", reason="peft is not installed")
    base().save_pretrained(tmp_path / "config")
    untouched = built(base())
    untouched.save_pretrained(tmp_path / "base")
    trained = LlamaForCausalLM.from_pretrained(
        tmp_path / "base", config=plan.apply(planned(), base())
    )
    adapter = peft.get_peft_model(
        trained, peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=2)
    )
    adapter.save_pretrained(tmp_path / "adapter")
    merged = peft.PeftModel.from_pretrained(
        LlamaForCausalLM.from_pretrained(tmp_path / "base", config=plan.apply(planned(), base())),
        tmp_path / "adapter",
    ).merge_and_unload()
    assert "hold the plan" in proof.prove(merged, planned(), "after the merge")
    lost = peft.PeftModel.from_pretrained(
        LlamaForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter"
    )
    refused(lost.merge_and_unload(), rf"{MODULE}\.inv_freq\[\d\]")


@pytest.mark.parametrize(
    ("roundings", "restored"), [(-2, False), (-1, True), (0, True), (2, False)]
)
def test_a_table_is_restored_within_one_rounding_of_the_plan(
    roundings: int, restored: bool
) -> None:
    model = built()
    inv_freq = torch.tensor(planned().inv_freq, dtype=torch.float32)
    for name in ("inv_freq", "original_inv_freq"):
        table = (inv_freq * (1 + roundings * proof.RTOL)).double()
        setattr(model.model.rotary_emb, name, table)
    proof.restore(model, planned())
    assert (model.model.rotary_emb.inv_freq.dtype == torch.float32) == restored


@pytest.mark.parametrize(("last", "short"), [(255, True), (256, False)])
def test_the_short_table_serves_texts_of_the_original_window(last: int, short: bool) -> None:
    """transformers takes the long table for more than 256 tokens: positions up to 256."""
    table = Table(np.full(16, 1e-3), short_inv_freq=np.full(16, 2e-3))
    positions = np.array([0, last])
    cos, _ = layer_proof._planned_cos_sin(table, positions, planned())
    frequency = 2e-3 if short else 1e-3
    assert cos[1].numpy() == pytest.approx(np.cos(last * frequency))
