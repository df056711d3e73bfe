"""Communication against every collective of real ranks; memory against published counts."""

from collections import Counter
from itertools import accumulate

import metrics_runs
import models
import pytest
import ranks
import traffic_runs
from models import tiny_model

from ropewalk.train.cost import traffic

CHECKPOINTING = "train.memory.activation_checkpointing=true"
BATCH = len(metrics_runs.LENGTHS) * metrics_runs.SEQ_LEN


@pytest.mark.parametrize(
    ("stage", "sp", "accumulated", "overrides"),
    [
        (0, 1, 2, ()),
        (1, 2, 2, (CHECKPOINTING, "train.memory.keep_attention=false")),
        (1, 2, 2, (CHECKPOINTING,)),  # the exchange of heads is kept
        (2, 1, 2, ()),
        (2, 2, 1, ("train.precision=bf16",)),
        (3, 2, 2, ()),
        (3, 2, 1, ("train.precision=bf16",)),
        (1, 1, 1, ("train.precision=bf16",)),
    ],
)
def test_the_bytes_of_every_collective_are_counted(
    stage: int, sp: int, accumulated: int, overrides: tuple[str]
) -> None:
    actual = ranks.run(2, traffic_runs.bytes_of_third_step, stage, sp, accumulated, *overrides)
    sizes = traffic.model_sizes(tiny_model(**metrics_runs.LARGE))
    layout = traffic.ParallelLayout(
        dp_size=2 // sp,
        sp_size=sp,
        zero_stage=stage,
        accumulation_steps=accumulated,
        tokens=BATCH // accumulated // (2 // sp),
        element_bytes=2 if "train.precision=bf16" in overrides else 4,
        checkpointing=CHECKPOINTING in overrides,
        keeps_exchange="train.memory.keep_attention=false" not in overrides,
    )
    expected: Counter[str] = Counter()
    for collective in traffic.collectives(sizes, layout):
        expected[collective.kind] += collective.payload
    assert actual == [dict(expected)] * 2


@pytest.mark.parametrize(
    ("sp", "heads", "kv_heads"),
    [(2, 3, 1), pytest.param(4, 6, 3, marks=pytest.mark.slow)],
)
def test_the_bytes_of_heads_that_the_ranks_do_not_divide_are_counted(
    sp: int, heads: int, kv_heads: int
) -> None:
    """The ranks' bytes differ; their sum is counted."""
    shape = {
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "hidden_size": 8 * heads,
    }
    model = {**metrics_runs.LARGE, **shape, "head_dim": 8}
    actual = ranks.run(sp, traffic_runs.bytes_of_third_step_by_heads, sp, model)
    lengths = [
        length for row in metrics_runs.LENGTHS for length in (*row, metrics_runs.SEQ_LEN - sum(row))
    ]
    layout = traffic.ParallelLayout(
        dp_size=1,
        sp_size=sp,
        zero_stage=1,
        accumulation_steps=1,
        tokens=BATCH,
        element_bytes=4,
        document_ends=(0, *accumulate(lengths)),
    )
    sizes = traffic.model_sizes(tiny_model(**model))
    expected = [c for c in traffic.collectives(sizes, layout) if c.kind == "all_to_all"]
    assert sum(rank["all_to_all"] for rank in actual) == sp * sum(c.payload for c in expected)


def split_sizes(heads: int, kv_heads: int) -> traffic.ModelSizes:
    """Of a layer with heads of one element, beside which nothing counts."""
    return traffic.ModelSizes(0, 0, 0, 0, 0, 0, 1, heads, kv_heads, 1)


def test_two_ranks_that_share_three_heads_send_what_a_hand_counts() -> None:
    """Four pieces of S / 4. Rank 0 holds 0 and 1 and attends for 0 and 3, rank 1 for 1 and 2."""
    layout = traffic.ParallelLayout(1, 2, 1, 1, 400, element_bytes=1)
    queries = 100 * 3  # rank 0 sends piece 1 and rank 1 piece 3, and each gets its output back
    keys = 200  # rank 0 needs all keys, rank 1 those of pieces 0 to 2, of which it has piece 2
    sent = traffic.sent_in_attention(split_sizes(3, 1), layout)
    assert sent["ours"] == 2 * (2 * queries + 2 * keys)  # backward as forward
    assert sent["ring"] == 3 * 2 * 200  # one step: keys and values twice, their gradients once
    # a document a rank: half of each one's queries go to the other rank, which sees all keys of
    # one document and three of four pieces of the other
    documents = traffic.ParallelLayout(1, 2, 1, 1, 400, 1, document_ends=(0, 200, 400))
    two = traffic.sent_in_attention(split_sizes(3, 1), documents)
    assert two["ours"] == 2 * (2 * 100 * 3 + 2 * (200 + 150) / 2)
    short = traffic.ParallelLayout(1, 2, 1, 1, 400, 1, document_ends=tuple(range(0, 401, 20)))
    assert traffic.sent_in_attention(split_sizes(3, 1), short)["ours"] == 2 * 2 * 100 * (3 + 1)


def test_qwens_28_heads_on_8_ranks_send_less_than_a_ring() -> None:
    """Four head groups and two parts, which see 1 and 3/4 of a document: 7/8 of it on average."""
    sizes, layout = split_sizes(28, 4), traffic.ParallelLayout(1, 8, 1, 1, 8000, element_bytes=1)
    exchanges = [c for c in traffic.collectives(sizes, layout) if c.kind == "all_to_all"]
    assert [c.bytes for c in exchanges] == [28000, 7000, 7000, 28000]
    sent = traffic.sent_in_attention(sizes, layout)
    assert sent["ulysses"] == 2 * 2 * (28 + 8) * 1000 * 7 / 8
    assert sent["ring"] == 3 * 2 * 4 * 1000 * 7
    assert sent["ours"] < 0.98 * sent["ulysses"] and sent["ours"] < 0.75 * sent["ring"]


def test_a_ring_sends_the_published_number_of_bytes() -> None:
    """Rabenseifner 2004, NCCL's documentation: (N - 1) / N of the tensor, an all-reduce twice."""
    rounds = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1, "all_to_all": 1}
    for kind, times in rounds.items():
        assert traffic.Collective(kind, "", 3, 800, 8).bytes_sent == 3 * times * 700


def test_ulysses_sends_the_bytes_of_its_paper() -> None:
    """Jacobs et al. 2023 (arXiv 2309.14509), section 3.2: 4 N h / P elements a rank and layer."""
    layout = traffic.ParallelLayout(1, 8, 3, 1, 1 << 17, checkpointing=False)
    collectives = traffic.collectives(llama_8b(), layout)
    forward = sum(c.payload for c in collectives if c.kind == "all_to_all") // 2
    without_gqa = 4 * (1 << 17) * 4096 // 8 * 2 * 32
    # grouped keys and values are a quarter as wide
    saved = 2 * (1 << 17) * (4096 - 1024) // 8 * 2 * 32
    assert forward == without_gqa - saved


def llama_8b() -> traffic.ModelSizes:
    return traffic.model_sizes(models.llama_8b())


def test_llama_8b_has_its_published_size() -> None:
    assert llama_8b().parameters == 8_030_261_248
    assert (llama_8b().vocabulary, llama_8b().hidden) == (128_256, 4096)


def test_memory_traffic_of_a_sharded_model() -> None:
    """ZeRO (Rajbhandari et al. 2020, section 3.1): masters and moments are 12 bytes an element."""
    sizes = llama_8b()
    bytes_moved = traffic.memory_traffic(sizes, traffic.ParallelLayout(1, 8, 3, 2, 1 << 17))
    assert bytes_moved["optimizer"] == sizes.parameters * (2 * 12 + 2 + 2) // 8
    assert bytes_moved["gradients"] == 2 * sizes.parameters * 2
    assert bytes_moved["weights"] == 2 * 3 * 2 * (sizes.parameters - 2 * 128_256 * 4096 - 65 * 4096)
    assert bytes_moved["checkpoints"] == 2 * (1 << 17) // 8 * 2 * 32 * 4096 * 2
    # the loss in one piece: the head is read twice a micro-batch, its gradient in fp32 too
    logits = 2 * (1 << 17) // 8 * 3 * 128_256 * 4
    assert bytes_moved["head"] == 2 * 128_256 * 4096 * (2 + 2 + 4 + 4) + logits


@pytest.mark.parametrize("checkpointing", [False, True])
def test_memory_traffic_of_a_small_model_counted_by_hand(checkpointing: bool) -> None:
    """Each tensor that a pass reads or writes is listed with its elements, a token and layer."""
    sizes = traffic.ModelSizes(
        parameters=7000,
        trainable=6000,
        matrices=5000,
        operands=900,
        hidden=32,
        vocabulary=100,
        layers=3,
        heads=4,
        kv_heads=2,
        head_dim=8,
    )
    layout = traffic.ParallelLayout(
        2, 2, 0, 5, 14, element_bytes=2, checkpointing=checkpointing, loss_chunk=3
    )
    forwards, q, kv = 1 + checkpointing, 4 * 8, 2 * 8
    # queries, keys, values and output; with their gradients (FlashAttention-2, algorithm 2)
    attention = forwards * (q + kv + kv + q) + (q + kv + kv + q + q) + (q + kv + kv)
    # a product reads its input and writes its output; backward does it for both gradients
    activations = 5 * 7 * (900 * (forwards + 2) + 3 * attention) * 2
    # chunks of 3, 3 and 1 tokens read the head in both passes and add to its fp32 gradient
    head = 5 * 3 * 100 * 32 * (2 + 2 + 4 + 4)
    logits = 5 * 7 * 100 * (4 + 4 + 4)
    assert traffic.memory_traffic(sizes, layout) == {
        "weights": (forwards + 1) * 5 * 5000 * 2,
        "gradients": 5 * 6000 * 2,
        "optimizer": 6000 * (3 * 4 + 3 * 4 + 2 + 2),
        "activations": activations,
        "checkpoints": 5 * 7 * 2 * 3 * 32 * 2 if checkpointing else 0,
        "head": head + logits,
    }
