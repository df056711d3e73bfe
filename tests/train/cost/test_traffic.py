"""Communication against every collective of real ranks; memory against published counts."""

from collections import Counter

import metrics_runs
import pytest
import ranks
import torch
import traffic_runs
from models import tiny_model
from transformers import AutoModelForCausalLM, LlamaConfig

from ropewalk.train.cost import traffic

BATCH = len(metrics_runs.LENGTHS) * metrics_runs.SEQ_LEN


@pytest.mark.parametrize(
    ("stage", "sp", "accumulated", "overrides"),
    [
        (0, 1, 2, ()),
        (1, 2, 2, ("train.memory.activation_checkpointing=true",)),
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
        checkpointing=any("checkpointing" in override for override in overrides),
    )
    expected: Counter[str] = Counter()
    for collective in traffic.collectives(sizes, layout):
        expected[collective.kind] += collective.payload
    assert actual == [dict(expected)] * 2


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
    config = LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return traffic.model_sizes(AutoModelForCausalLM.from_config(config))


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
