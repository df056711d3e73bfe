"""The seconds of a step against arithmetic by hand; docs/performance.md against the code."""

import math
from dataclasses import replace
from functools import cache

import models
import performance
import pytest

from ropewalk.train.cost import flops, hardware, traffic
from ropewalk.train.cost.layer_traffic import LayerTraffic
from ropewalk.train.cost.step_time import (
    FLASH_2,
    FLASH_3,
    H100,
    Choices,
    Rates,
    StepTime,
    step_time,
)

LONG = 131_072
EIGHT = traffic.ParallelLayout(1, 8, 2, 1, LONG, loss_chunk=2048)
FAST = Rates(FLASH_3)
LAYER = LayerTraffic(forward=800_000, backward=1_400_000, saved=0)


@cache
def llama_8b() -> tuple[flops.ModelCost, traffic.ModelSizes]:
    model = models.llama_8b()
    return flops.model_cost(model), traffic.model_sizes(model)


KEPT = Choices(attention_kept=True)


def step(
    layout: traffic.ParallelLayout = EIGHT, rates: Rates = FAST, choices: Choices = KEPT
) -> StepTime:
    return step_time(*llama_8b(), LAYER, layout, rates, choices, [layout.tokens])


def test_terms_are_work_over_rates() -> None:
    """Llama 3 8B: 32 layers, 32 heads of 128, 6.98e9 parameters in the layers' matrices."""
    terms = step().terms
    attention = 32 * 4 * 32 * 128 * LONG**2 / 2 / 8  # two products of 2 D a visible pair
    assert terms["attention, forward"] == pytest.approx(attention / 640e12, rel=1e-4)
    assert terms["attention, backward"] == pytest.approx(2.5 * attention / 530e12, rel=1e-4)
    matrices = 32 * (4096 * (2 * 4096 + 2 * 1024) + 3 * 4096 * 14_336)
    products = 4 * 2 * matrices * LONG / 8
    assert terms["linear layers"] == pytest.approx(products / 680e12, rel=1e-9)
    elementwise = 32 * LONG / 8 * (2 * 800_000 + 1_400_000)
    assert terms["norms, rotary, activations"] == pytest.approx(elementwise / 2.7e12)


def test_mfu_counts_the_mathematics_once() -> None:
    result = step(choices=Choices(attention_kept=False))
    attention = 32 * 4 * 32 * 128 * LONG**2 / 2
    matrices = 32 * (4096 * (2 * 4096 + 2 * 1024) + 3 * 4096 * 14_336) + 128_256 * 4096
    useful = 3 * (attention + 2 * matrices * LONG)
    expected = useful / (sum(result.terms.values()) * 8 * 989.4e12)
    assert result.mfu == pytest.approx(expected, rel=1e-4)


def test_what_is_kept_is_not_computed_again() -> None:
    again, kept = step(choices=Choices(attention_kept=False)), step()
    assert again.terms["attention, computed again"] == again.terms["attention, forward"]
    assert kept.terms["attention, computed again"] == 0
    nothing = step(replace(EIGHT, checkpointing=False), choices=Choices(attention_kept=False))
    assert nothing.terms["attention, computed again"] == 0
    assert nothing.terms["linear layers"] == pytest.approx(0.75 * again.terms["linear layers"])


def test_a_slower_kernel_takes_longer_in_attention_alone() -> None:
    slow, fast = (step(rates=Rates(kernel)).terms for kernel in (FLASH_2, FLASH_3))
    assert {name for name in slow if slow[name] != fast[name]} == {
        "attention, forward",
        "attention, backward",
    }


def test_gradients_that_take_longer_than_the_compute_show() -> None:
    """ZeRO 2 sends the fp32 gradients twice around 8 ranks: 2 x 7/8 x 32 GB."""
    short = replace(EIGHT, tokens=1024)
    fp32, bf16 = 4 * 8.03e9, 2 * 8.03e9
    seconds = (2 * fp32 + bf16) * 7 / 8 / 370e9
    exposed = step(short, choices=Choices(overlapped=False)).terms["gradients and weights"]
    assert exposed == pytest.approx(seconds, rel=1e-3)
    result = step(short)
    compute = result.seconds - result.terms["exchange of heads"]
    compute -= result.terms["gradients and weights"]
    assert result.terms["gradients and weights"] == pytest.approx(
        seconds - 0.75 * compute, rel=1e-2
    )


def test_rings_leave_each_node_once_through_all_of_its_ports() -> None:
    """ZeRO 3 on 16 nodes of 8: a node takes 15/16 of the weights in by 8 ports of 45 GB/s, and its
    GPUs pass 127/128 of them on to one another at 370."""
    choices = Choices(overlapped=False)
    layout = traffic.ParallelLayout(128, 1, 3, 1, LONG)
    sent = (2 * 2 + 4) * llama_8b()[1].parameters  # gathered twice in bf16, reduced in fp32
    inside = step(layout, choices=choices).terms["gradients and weights"]
    assert inside == pytest.approx(sent * 127 / 128 / 370e9)
    slow = step(layout, replace(FAST, network=25e9), choices)
    assert slow.terms["gradients and weights"] == pytest.approx(sent * 15 / 16 / (8 * 25e9))


def test_an_exchange_between_nodes_goes_through_each_ranks_own_port() -> None:
    """16 ranks on two nodes: of 15 others 8 are on the other one."""
    layout = replace(EIGHT, sp_size=16, zero_stage=1, checkpointing=False)
    queries, keys = LONG / 16 * 4096 * 2, LONG / 16 * 2048 * 2  # 8 heads of keys, repeated to 16
    sent = 2 * 2 * 32 * (queries + keys) * 8 / 16
    assert step(layout).terms["exchange of heads"] == pytest.approx(sent / 45e9)


def test_a_small_message_is_sent_at_its_measured_rate() -> None:
    """8 x H100 at 1M tokens: queries of 2 x 131072 x 4096 bytes, keys a quarter, 64 times.

    The curve has 220 GB/s at 16 MiB and 368 at 16 GiB, a line between them in logarithms.
    """
    layout = replace(EIGHT, tokens=1 << 20, zero_stage=1, checkpointing=False)
    curve = Rates.of(H100, is_fast=True)
    seconds = 0.0
    for share in (1, 4):
        size = 2 * 131_072 * 4096 / share
        rate = 220 * (368 / 220) ** (math.log(size / 2**24) / math.log(1024))
        seconds += 2 * 64 * size * 7 / 8 / (rate * 1e9)
    assert step(layout, curve).terms["exchange of heads"] == pytest.approx(seconds, rel=1e-6)
    ceiling = step(layout, Rates.of(H100, is_fast=True, is_ceiling=True))
    sent = 2 * 64 * (1 + 1 / 4) * 2 * 131_072 * 4096 * 7 / 8
    assert ceiling.terms["exchange of heads"] == pytest.approx(sent / 450e9)


def test_frozen_weights_have_no_product_for_their_gradient() -> None:
    """LoRA: forward and the inputs' gradients, 2 of 3 products; with what is computed again 3 of
    4."""
    cost, sizes = llama_8b()
    frozen = replace(cost, trainable=0, head_trainable=False)
    arguments = (sizes, LAYER, EIGHT, FAST, KEPT, [LONG])
    full, lora = (step_time(one, *arguments).terms for one in (cost, frozen))
    assert lora["linear layers"] == pytest.approx(3 / 4 * full["linear layers"])
    products = 2 * cost.head * (LONG - 1) / 8 / FAST.product_flops
    assert full["loss and head"] - lora["loss and head"] == pytest.approx(products)


def test_a_tiled_mlp_is_computed_once_more() -> None:
    mlp = 32 * 3 * 4096 * 14_336
    tiled, whole = (
        step(choices=Choices(tiled_elements=elements)).terms["linear layers"]
        for elements in (mlp, 0)
    )
    assert tiled - whole == pytest.approx(2 * mlp * LONG / 8 / FAST.product_flops)


def test_published_runs_are_within_a_quarter() -> None:
    rows = performance.tables()["published"]
    assert len(rows) == 3
    for row in rows:
        assert 0.8 < row["ours"] / row["published"] < 1.25, row["run"]


def test_the_expected_figures_hold_their_bars() -> None:
    jobs = performance.tables()["jobs"]
    assert jobs[0]["compiled"]["mfu"] >= 0.50
    assert jobs[1]["attention kept"]["mfu"] >= 0.42


def test_the_document_is_current() -> None:
    text = performance.DOCUMENT.read_text()
    assert "| **MFU** |" in text
    assert performance.document_with(text, performance.render(performance.tables())) == text


def test_micro_batches_repeat_all_but_the_optimizer() -> None:
    choices = replace(KEPT, tiled_elements=10**9)
    gap = replace(FAST, launch_gap=0.01)
    one = step(rates=gap, choices=choices)
    four = step(replace(EIGHT, accumulation_steps=4), gap, choices)
    assert four.model_flops == 4 * one.model_flops
    for name in one.terms.keys() - {"gradients and weights"}:
        times = 1 if name == "optimizer" else 4
        if name != "loss and head":
            assert four.terms[name] == pytest.approx(times * one.terms[name]), name
    product = 3 * 2 * 128_256 * 4096 * (LONG - 1) / 8 / 680e12
    for each, times in ((one, 1), (four, 4)):
        layout = replace(EIGHT, accumulation_steps=times)
        memory = traffic.memory_traffic(llama_8b()[1], layout)["head"] / 2.7e12
        assert each.terms["loss and head"] - memory == pytest.approx(times * product)
    assert one.terms["waits for the host"] == 0.01


def test_tiles_and_the_head_are_products() -> None:
    """Tiles are computed once more; the head forward, and backward for input and weight."""
    tiled = step(choices=replace(KEPT, tiled_elements=10**9)).terms["linear layers"]
    assert tiled - step().terms["linear layers"] == pytest.approx(2e9 * LONG / 8 / 680e12)
    whole, half = (
        step_time(*llama_8b(), LAYER, EIGHT, FAST, KEPT, lengths).terms["loss and head"]
        for lengths in ([LONG], [LONG // 2, LONG // 2])
    )  # a document has a label less than tokens
    assert whole - half == pytest.approx(3 * 2 * 128_256 * 4096 / 8 / 680e12, rel=1e-3)


def test_the_output_of_the_attention_is_kept_unless_it_is_said() -> None:
    assert Choices() == KEPT


def test_a_peak_is_in_teraflops() -> None:
    assert hardware.peak_flops(312.0) == 312_000_000_000_000.0


def test_the_ceiling_is_the_data_sheet_without_waits() -> None:
    """NVIDIA's data sheet of an H100 SXM: 3.35 TB/s, 989.4 dense TFLOP/s in bf16."""
    usual, ceiling = Rates.of(H100, is_fast=True), Rates.of(H100, is_fast=True, is_ceiling=True)
    assert (ceiling.launch_gap, usual.launch_gap) == (0.0, 0.01)
    assert ceiling.memory == H100.memory_tb_s.value * 1e12 > usual.memory
    assert ceiling.product_flops == H100.matmul_tflops.value * 1e12 > usual.product_flops
    assert ceiling.link == H100.link.gb_s.value * 1e9 > usual.link
    assert ceiling.network == H100.network.gb_s.value * 1e9 > usual.network
    assert ceiling.link_curve is ceiling.network_curve is None and usual.link_curve is not None
    assert ceiling.peak_flops == usual.peak_flops == pytest.approx(989.4e12, rel=1e-3)


def test_kernels_of_an_h100_have_the_published_rates() -> None:
    """FlashAttention-3, arXiv 2407.08608; of flash-attn 2 about 60% of it."""
    assert (FLASH_3.forward, FLASH_3.backward) == (640_000_000_000_000, 530_000_000_000_000)
    assert (FLASH_2.forward, FLASH_2.backward) == (380_000_000_000_000, 320_000_000_000_000)
