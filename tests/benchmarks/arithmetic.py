"""Lower bounds for a step of Llama 3 8B on eight GPUs, from counted FLOPs and bytes.

Nothing here is measured. Each figure divides a count (model FLOPs, bytes moved, bytes sent) by a
published hardware ceiling; no step can be faster.
"""

from dataclasses import asdict
from typing import Any

import common

GPU, GPUS = "H100", 8
LENGTHS = (131_072, 1_048_576)
DOCUMENTS = {"one document": 1, "eight documents": 8}


# -- in the child ----------------------------------------------------------------------------------


def count() -> list[dict[str, Any]]:
    """Counts by length and number of documents."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(_llama_8b())
    return [
        _count(model, tokens, documents) for tokens in LENGTHS for documents in DOCUMENTS.values()
    ]


def _count(model: Any, tokens: int, documents: int) -> dict[str, Any]:
    """One micro-step of one sequence over all GPUs: ZeRO 3, bf16, activation checkpointing."""
    from ropewalk.train.cost import flops, traffic
    from ropewalk.train.loss import chunk_tokens

    lengths, labels = [tokens // documents] * documents, tokens - documents
    cost, sizes = flops.model_cost(model), traffic.model_sizes(model)
    layout = traffic.ParallelLayout(
        1, GPUS, 3, 1, tokens, loss_chunk=chunk_tokens(sizes.vocabulary, "cuda")
    )
    return {
        "parameters": sizes.parameters,
        "model_flops": cost.training_flops(lengths, labels),
        "attention_flops": 3 * sum(layer.flops(lengths) for layer in cost.layers),
        "recomputed_flops": cost.body_flops(lengths),
        "memory": traffic.memory_traffic(sizes, layout),
        "sent": _by_kind(traffic.collectives(sizes, layout)),
    }


def _llama_8b() -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=128_256,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        tie_word_embeddings=False,
    )


def _by_kind(collectives: Any) -> dict[str, float]:
    """Bytes that a rank sends, by collective and tensor; Ulysses' tensors are one."""
    bytes_by_kind: dict[str, float] = {}
    for collective in collectives:
        name = (
            "all_to_all heads"
            if collective.kind == "all_to_all"
            else f"{collective.kind} {collective.tensor}"
        )
        bytes_by_kind[name] = bytes_by_kind.get(name, 0.0) + collective.bytes_sent
    return bytes_by_kind


# -- in the parent ---------------------------------------------------------------------------------


def arithmetic(quick: bool) -> list[dict[str, Any]]:
    """A row for each length and bound; the first row of a length has the counts."""
    common.say(
        f"  arithmetic, not a measurement: Llama 8B's shape on {GPUS} x {GPU}, published ceilings"
    )
    cells = [(tokens, documents) for tokens in LENGTHS for documents in DOCUMENTS]
    all_counts = common.child("arithmetic:count")
    return [
        row for cell, counts in zip(cells, all_counts, strict=True) for row in _rows(*cell, counts)
    ]


def _rows(tokens: int, documents: str, counts: dict[str, Any]) -> list[dict[str, Any]]:
    from ropewalk.conf.hardware_file import of_device

    top = of_device(GPU)
    assert top is not None
    moved, sent = sum(counts["memory"].values()), sum(counts["sent"].values())
    bounds = {
        "model_flops": counts["model_flops"] / GPUS / (top.bf16_tflops.value * 1e12),
        "with_recomputation": (counts["model_flops"] + counts["recomputed_flops"])
        / GPUS
        / (top.bf16_tflops.value * 1e12),
        "memory": moved / (top.memory_tb_s.value * 1e12),
        "links": sent / (top.link.gb_s.value * 1e9),
    }
    common.say(_table(tokens, documents, counts, bounds))
    prefix = f"arithmetic_8b_{tokens}_{DOCUMENTS[documents]}"
    rows = [
        common.result(f"{prefix}_{name}", seconds, "s at least", measured=False)
        for name, seconds in bounds.items()
    ]
    rows[0] |= {"counts": counts, "ceilings": asdict(top), "documents": DOCUMENTS[documents]}
    return rows


def _table(tokens: int, documents: str, counts: dict[str, Any], bounds: dict[str, float]) -> str:
    share = counts["attention_flops"] / counts["model_flops"]
    pflop, recomputed = (counts[key] / 1e15 for key in ("model_flops", "recomputed_flops"))
    lines = [
        f"  {tokens:,} tokens, {documents}: {pflop:,.1f} PFLOP ({share:.0%} attention) and "
        f"{recomputed:,.1f} recomputed; a GPU reads and writes, sends:"
    ]
    lines += [
        f"    {name:<28} {count / 1e9:>10,.1f} GB in memory"
        for name, count in counts["memory"].items()
    ]
    lines += [
        f"    {name:<28} {count / 1e9:>10,.1f} GB sent" for name, count in counts["sent"].items()
    ]
    parts = ", ".join(
        f"{name.replace('_', ' ')} {seconds:,.2f} s" for name, seconds in bounds.items()
    )
    return "\n".join([*lines, f"    no step is faster than: {parts}"])
