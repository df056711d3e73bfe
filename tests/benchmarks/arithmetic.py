"""A step of Llama 3 8B's shape on eight GPUs, counted: model FLOPs, bytes moved and communication beside published ceilings.

Nothing here is measured, and no time that a GPU takes is claimed: each figure is a bound that no step can be faster than.
"""

from typing import Any

import common

GPU, GPUS = "H100", 8
LENGTHS = (131_072, 1_048_576)
DOCUMENTS = {"one document": 1, "eight documents": 8}


# -- in the child ------------------------------------------------------------------------------------------------------


def count() -> list[dict[str, Any]]:
    """One for each length and number of documents."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(_llama_8b())
    return [
        _count(model, tokens, documents) for tokens in LENGTHS for documents in DOCUMENTS.values()
    ]


def _count(model: Any, tokens: int, documents: int) -> dict[str, Any]:
    """A sequence of `tokens` shared by all GPUs: ZeRO 3, bf16, activation checkpointing, one micro-step."""
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
    """Bytes that a rank sends, by kind and what it is of; queries, keys, values and what is attended are one."""
    found: dict[str, float] = {}
    for one in collectives:
        name = "all_to_all heads" if one.kind == "all_to_all" else f"{one.kind} {one.tensor}"
        found[name] = found.get(name, 0.0) + one.bytes_sent
    return found


# -- in the parent -----------------------------------------------------------------------------------------------------


def arithmetic(quick: bool) -> list[dict[str, Any]]:
    """A row for each length and each bound; the counts stand in the first of them."""
    common.say(
        f"  arithmetic, not a measurement: Llama 8B's shape on {GPUS} x {GPU}, ceilings as published"
    )
    cells = [(tokens, said) for tokens in LENGTHS for said in DOCUMENTS]
    found = common.child("arithmetic:count")
    return [row for cell, counts in zip(cells, found, strict=True) for row in _rows(*cell, counts)]


def _rows(tokens: int, said: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    from ropewalk.train.cost.hardware import peak_of

    top = peak_of(GPU)
    assert top is not None
    moved, sent = sum(found["memory"].values()), sum(found["sent"].values())
    bounds = {
        "model_flops": found["model_flops"] / GPUS / (top.bf16_tflops * 1e12),
        "with_recomputation": (found["model_flops"] + found["recomputed_flops"])
        / GPUS
        / (top.bf16_tflops * 1e12),
        "memory": moved / (top.memory_tb_s * 1e12),
        "links": sent / (top.link_gb_s * 1e9),
    }
    common.say(_table(tokens, said, found, bounds))
    at = f"arithmetic_8b_{tokens}_{DOCUMENTS[said]}"
    rows = [
        common.result(f"{at}_{name}", seconds, "s at least", measured=False)
        for name, seconds in bounds.items()
    ]
    rows[0] |= {"counts": found, "ceilings": vars(top), "documents": DOCUMENTS[said]}
    return rows


def _table(tokens: int, said: str, found: dict[str, Any], bounds: dict[str, float]) -> str:
    share = found["attention_flops"] / found["model_flops"]
    heading = f"  {tokens:,} tokens, {said}: {found['model_flops'] / 1e15:,.1f} PFLOP ({share:.0%} attention) and "
    lines = [
        heading
        + f"{found['recomputed_flops'] / 1e15:,.1f} recomputed; a GPU reads and writes, sends:"
    ]
    lines += [
        f"    {name:<28} {count / 1e9:>10,.1f} GB in memory"
        for name, count in found["memory"].items()
    ]
    lines += [
        f"    {name:<28} {count / 1e9:>10,.1f} GB sent" for name, count in found["sent"].items()
    ]
    parts = ", ".join(
        f"{name.replace('_', ' ')} {seconds:,.2f} s" for name, seconds in bounds.items()
    )
    return "\n".join([*lines, f"    no step is faster than: {parts}"])
