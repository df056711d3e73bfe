"""Bytes of elementwise work against counts by hand, and saved bytes against torch's own hooks."""

import torch
from torch import nn
from transformers import LlamaConfig

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


def test_fused_kernels_move_less() -> None:
    eager, fused = layer_traffic.layer_traffic(CONFIG), layer_traffic.fused_layer_traffic(CONFIG)
    assert fused.forward < eager.forward / 2
    assert fused.backward < eager.backward / 2
    assert fused.saved == eager.saved
