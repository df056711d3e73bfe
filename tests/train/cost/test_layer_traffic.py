"""Bytes of elementwise work against counts by hand, and saved bytes against torch's own hooks."""

import torch
from torch import nn
from transformers import LlamaConfig, Olmo3Config

from ropewalk.train.cost import layer_traffic

CONFIG = LlamaConfig(
    vocab_size=64,
    hidden_size=64,
    intermediate_size=160,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
)


def test_an_operation_reads_its_tensors_and_writes_its_result() -> None:
    gate, up = (torch.empty(8, 160, dtype=torch.bfloat16, device="meta") for _ in range(2))
    with layer_traffic._ElementwiseBytes() as counted:
        nn.functional.silu(gate) * up
    assert counted.bytes == (2 + 3) * 8 * 160 * 2  # silu: in, out; product: two in, one out


def test_products_and_views_move_nothing() -> None:
    a = torch.empty(8, 16, device="meta")
    with layer_traffic._ElementwiseBytes() as counted:
        (a @ a.T).view(4, 16).transpose(0, 1)[2:]
    assert counted.bytes == 0


def test_a_layers_forward_pass_is_what_its_source_says() -> None:
    """Counted by reading LlamaDecoderLayer: norms, sums, rotary and the gate."""
    hidden, inner, element = 64, 160, 2
    actual = layer_traffic.layer_traffic(CONFIG)
    # LlamaRMSNorm: to fp32 (E x 6 bytes), square (8), mean (4), the rsqrt of one number, product
    # (8), back to bf16 (6), weight (4, and the weight itself once a call)
    norm = (6 + 8 + 4 + 8 + 6 + 4) * hidden
    gate = 5 * inner * element
    sums = 2 * 3 * hidden * element
    q_and_k = (64 + 32) * element
    # times cos and sin, their sum, and rotate_half: the negation of a half and a concatenation
    rotary = (2 + 2 + 3 + 1 + 2) * q_and_k
    by_hand = 2 * norm + gate + sums + rotary
    assert 1.0 < actual.forward / by_hand < 1.03  # single numbers a token, cos, sin, weights


def test_saved_bytes_are_those_of_the_products_inputs_at_least() -> None:
    """A product keeps its input: q, k and v share one, as gate and up do."""
    hidden, inner = 64, 160
    products = hidden + hidden + hidden + inner  # qkv, o, gate and up, down
    attention = 2 * hidden + 2 * 32 + 2 * 4  # q, output, k, v and a fp32 sum a head
    gate = 3 * inner  # gate, its silu, up
    actual = layer_traffic.layer_traffic(CONFIG).saved / 2
    assert actual > products - hidden + attention + gate  # o's input is the attention's output


def test_a_model_with_a_table_for_each_layer_type_is_counted() -> None:
    """OLMo 3: the norms of queries and keys move more than Llama's layer of the same width does."""
    shape = {**CONFIG.to_dict(), "layer_types": ["sliding_attention"] * 2 + ["full_attention"]}
    for key in ("model_type", "rope_parameters", "architectures", "transformers_version"):
        shape.pop(key, None)
    olmo, llama = (layer_traffic.layer_traffic(c) for c in (Olmo3Config(**shape), CONFIG))
    assert olmo.forward > llama.forward
    assert olmo.saved > llama.saved


def test_fused_kernels_move_less() -> None:
    eager, fused = layer_traffic.layer_traffic(CONFIG), layer_traffic.fused_layer_traffic(CONFIG)
    assert fused.forward < eager.forward / 2
    assert fused.backward < eager.backward / 2
    assert fused.saved == eager.saved


def test_fused_kernels_read_what_they_need_and_write_their_result_once() -> None:
    """Elements of E 64 and I 160; rotary embeddings stay eager, whatever the element has."""
    two, four = (layer_traffic.fused_layer_traffic(CONFIG, size) for size in (2, 4))
    norm, addition, gate = 2 * 64, 3 * 64, 3 * 160  # forward: in and out; two in, one out
    assert four.forward - two.forward == 2 * (2 * norm + 2 * addition + gate)
    norm, gate = 3 * 64, 5 * 160  # input, gradient, gradient; gate, up and gradient, two gradients
    assert four.backward - two.backward == 2 * (2 * norm + 5 * addition + gate)
    rotary = (2 + 2 + 3 + 1 + 2) * (64 + 32) * 2  # as counted above
    by_hand = 2 * (2 * 2 * 64 + 2 * 3 * 64 + 3 * 160) + rotary
    assert 1.0 <= two.forward / by_hand < 1.06
