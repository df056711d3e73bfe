"""The evaluation's engine: shared beginnings beside a prefill for each cell, and its memory.

Paired: both sides in one process, in turns, on the same prompts, and their answers must be equal.
The layers are those of SmolLM2-135M with random weights: what the tokens say costs nothing.
"""

import time
from collections.abc import Callable
from typing import Any

import common
import numpy as np

SHAPE = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}
CELLS, POINTS = 10, 64
PREFILL = "the same calls, every prompt from its start"
TRUNCATED = "a run for each of the 64 lengths"
DYNAMIC = "transformers' DynamicCache"


# -- in the child ----------------------------------------------------------------------------------


def model(layers: int, vocabulary: int = 2048) -> Any:
    """With the attention kernel that `ropewalk eval` has on a CPU."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from ropewalk.train import attention

    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=vocabulary, num_hidden_layers=layers, **SHAPE)
    result = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    needs = attention.requirements_of(result, torch.float32)
    result.set_attn_implementation(attention.register("auto", None, needs))
    return result


def ids(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, 2048, count)


def key_value(length: int) -> Any:
    """Ten questions about one object: a key is named, and its value of 16 tokens is decoded."""
    return _questions(length, question=24, answer=16, new=16)


def needle_map(length: int) -> Any:
    """Ten keyed needles in one haystack: each is asked for, and 8 tokens are decoded."""
    return _questions(length, question=16, answer=4, new=8)


def _questions(length: int, question: int, answer: int, new: int) -> Any:
    from ropewalk.eval.requests import Prompt, Prompts

    text = ids(length, 0)
    prompts = [
        Prompt(np.append(text, ids(question, n + 1)), ids(answer, n + 99), length, new)
        for n in range(CELLS)
    ]
    return Prompts(tuple(prompts))


def needle(length: int) -> Any:
    """One needle at ten depths of the same filler, the reference answer judged."""
    from ropewalk.eval.requests import Prompt, Prompts

    filler, key = ids(length, 0), ids(12, 1)
    depths = np.linspace(0, length, CELLS).astype(int)
    texts = [np.append(np.insert(filler, depth, key), ids(12, 2)) for depth in depths]
    return Prompts(tuple(Prompt(text, ids(4, 3)) for text in texts))


def sweep(name: str, length: int, layers: int, rounds: int) -> dict[str, Any]:
    """Seconds of both sides in each round; their replies must be equal to the bit."""
    from ropewalk.eval.engine.engine import Engine
    from ropewalk.eval.requests import Text

    group = {"key_value": key_value, "needle_map": needle_map, "needle": needle}[name](length)
    live = model(layers)
    engines = [Engine(live, 1 << 20, share=share) for share in (True, False)]
    for engine in engines:
        engine.measure([Text(ids(2100, 0))])  # the proof of the cache
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        replies = [
            _timed(lambda e=e: e.measure([group]), t) for e, t in zip(engines, times, strict=True)
        ]
        if replies[0] != replies[1]:
            raise RuntimeError(f"{name}: shared beginnings change the replies")
    return {"shared": times[0], "unshared": times[1]}


def _timed(work: Callable[[], Any], seconds: list[float]) -> Any:
    started = time.perf_counter()
    result = work()
    seconds.append(time.perf_counter() - started)
    return result


def curve(length: int, layers: int, rounds: int) -> dict[str, Any]:
    """Losses of a text in one run, beside a run for each of its lengths."""
    from ropewalk.eval.engine.engine import Engine
    from ropewalk.eval.requests import Text

    text = ids(length, 0)
    engine = Engine(model(layers), 1 << 20)
    engine.measure([Text(text[:2100])])
    lengths = [length * (n + 1) // POINTS for n in range(POINTS)]
    one: list[float] = []
    many: list[float] = []
    for _ in range(rounds):
        (losses,) = _timed(lambda: engine.measure([Text(text)]), one)
        parts = _timed(lambda: [engine.measure([Text(text[:n])])[0] for n in lengths], many)
    apart = [np.abs(losses[: n - 1] - part).max() for n, part in zip(lengths, parts, strict=True)]
    return {"one": one, "many": many, "apart": float(max(apart))}


def decode_step(tokens: int, layers: int, steps: int, kind: str) -> float:
    """Median seconds of a decoding step after this many tokens in a cache of this kind.

    The keys and values are random: what they are costs nothing.
    """
    import torch
    from transformers import DynamicCache

    from ropewalk.eval.engine.branch_attention import NAME, attend_branches
    from ropewalk.eval.engine.branches import Branch, BranchCache
    from ropewalk.eval.engine.cache import AppendCache
    from ropewalk.eval.engine.passes import step
    from ropewalk.train.model.attention_swap import swapped_attention

    live, seconds = model(layers), []
    own, dynamic = AppendCache(layers, tokens), DynamicCache(config=live.config)
    for cache in (own, dynamic):
        for layer in range(layers):
            cache.update(torch.randn(1, 3, tokens, 64), torch.randn(1, 3, tokens, 64), layer)
    with torch.no_grad():
        if kind == "dynamic":
            live.set_attn_implementation("sdpa")
            for _ in range(steps):
                token = torch.ones(1, 1, dtype=torch.int64)
                _timed(lambda t=token: live.base_model(t, past_key_values=dynamic), seconds)
        else:
            branches = BranchCache([Branch.of(own, tokens, tokens)], steps)
            with swapped_attention(live, NAME, attend_branches):
                for _ in range(steps):
                    _timed(lambda: live.base_model(**step([1], branches)), seconds)
                    branches.advance()
    return common.median(seconds[1:])


def memory(length: int, layers: int, vocabulary: int) -> dict[str, float]:
    """GiB of the peak over weights and cache, of a text and of a prompt with its answer."""
    from ropewalk.eval.engine.engine import Engine
    from ropewalk.eval.requests import Prompt, Prompts, Request, Text

    engine = Engine(model(layers, vocabulary), 8192)
    engine.measure([Text(ids(2100, 0))])
    requests: dict[str, Request] = {
        "text": Text(ids(length, 0)),
        "prompt": Prompts((Prompt(ids(length - 16, 1), ids(16, 2), 0, 16),)),
    }
    cache = 2 * layers * 3 * length * 64 * 4
    peaks = {}
    for name, request in requests.items():
        peak = common.Peak()
        engine.measure([request])
        peaks[name] = (peak.mib() - cache / common.MIB) / 1024
    return peaks


# -- in the parent ---------------------------------------------------------------------------------


def eval_sweeps(quick: bool) -> list[dict[str, Any]]:
    """Key-value sweep, keyed needle map, single needles: beside a prefill for each cell.

    Longer contexts save less for single needles: what is shared is the cheap part of attention.
    """
    cases = [
        ("key_value", 16384, 1 / 8),
        ("needle_map", 16384, 1 / 8),
        ("needle", 2048, 1 / 1.5),
        ("needle", 4096, 1 / 1.5),
        ("needle", 8192, None),
    ]
    rows = []
    for name, length, bar in cases:
        sizes = {"length": length, "layers": 2, "rounds": 2}
        if quick:
            sizes = {"length": length // 32, "layers": 1, "rounds": 1}
        runs = common.alone(
            lambda name=name, sizes=sizes: common.child("eval_engine:sweep", name=name, **sizes)
        )
        label = f"eval_{name}_10_at_{length}"
        rows.append(_row(label, runs["shared"], runs["unshared"], PREFILL, bar))
    return rows


def eval_curve(quick: bool) -> list[dict[str, Any]]:
    """Perplexity at 64 lengths from one run."""
    size = {"length": 640, "layers": 1, "rounds": 1} if quick else {"length": 4096, "layers": 2}
    runs = common.alone(lambda: common.child("eval_engine:curve", **{"rounds": 2, **size}))
    return [
        _row("eval_curve_64", runs["one"], runs["many"], TRUNCATED, 1 / 20),
        common.result("eval_curve_64_difference", runs["apart"], "nats", bar="value <= 1e-4"),
    ]


def _row(
    name: str, ours: list[float], peers: list[float], peer: str, bar: float | None
) -> dict[str, Any]:
    return common.result(
        name,
        common.median(ours),
        "s",
        peer=peer,
        peer_value=common.median(peers),
        bar=f"ratio <= {bar:.4g}" if bar else None,
        ratio_of_rounds=common.spread([a / b for a, b in zip(ours, peers, strict=True)]),
    )


def eval_decode_step(quick: bool) -> list[dict[str, Any]]:
    """A step after 16K tokens beside transformers' cache, which is copied at every step."""
    size = {"layers": 1, "steps": 4} if quick else {"layers": 8, "steps": 40}
    tokens = 512 if quick else 16384
    arms = {
        (kind, count): lambda kind=kind, count=count: common.child(
            "eval_engine:decode_step", kind=kind, tokens=count, **size
        )
        for kind in ("own", "dynamic")
        for count in (tokens // 8, tokens)
    }
    runs = common.alternate(1 if quick else 3, arms)
    ms = {arm: 1000 * common.median(values) for arm, values in runs.items()}
    growth = {kind: ms[kind, tokens] - ms[kind, tokens // 8] for kind in ("own", "dynamic")}
    return [
        common.result(
            f"eval_decode_step_{tokens}",
            ms["own", tokens],
            "ms",
            peer=DYNAMIC,
            peer_value=ms["dynamic", tokens],
            bar="ratio <= 0.6",
        ),
        common.result(
            f"eval_decode_step_growth_{tokens}",
            growth["own"],
            f"ms from {tokens // 8:,} tokens",
            peer=DYNAMIC,
            peer_value=growth["dynamic"],
        ),
    ]


def eval_memory(quick: bool) -> list[dict[str, Any]]:
    """The peak of 16K tokens in the shape of SmolLM2-135M, over its weights and the cache."""
    size = {"length": 2560, "layers": 1, "vocabulary": 4096}
    if not quick:
        size = {"length": 16384, "layers": 30, "vocabulary": 49152}
    peaks = common.child("eval_engine:memory", **size)
    return [
        common.result(f"eval_memory_{size['length']}_{name}", gib, "GiB", bar="value <= 0.6")
        for name, gib in peaks.items()
    ]
