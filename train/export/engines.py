"""The five engines: version, formula, the keys that each reads, the architectures verified."""

from dataclasses import dataclass

from ropewalk.train.export.formulas import Formula, converter, mlx_lm, sglang, transformers, vllm

ORIGINAL = "original_max_position_embeddings"
LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor")
YARN = ("factor", ORIGINAL)
RAMP = (*YARN, "beta_fast", "beta_slow")
MSCALES = ("mscale", "mscale_all_dim")
FULL_YARN = (*RAMP, *MSCALES, "attention_factor", "truncate")
DIVISORS = ("long_factor", "short_factor")
LLAMA_CPP = "xllamacpp 2026.10"  # the llama.cpp that reads GGUF files in the tests
LLAMAS = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class Engine:
    """An engine's formula, the keys that it reads of each `rope_type`, and what was verified."""

    version: str
    compute: Formula
    reads: dict[str, tuple[str, ...]]
    """rope_type -> keys that it reads besides rope_type and rope_theta; absent: not verified."""
    architectures: tuple[str, ...] | None = LLAMAS  # None: all


PLAIN: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": (*LLAMA3, ORIGINAL),
    "dynamic": ("factor",),
}
ENGINES = {
    "transformers": Engine(
        "5.23",
        transformers,
        {**PLAIN, "yarn": FULL_YARN, "longrope": (*YARN, *DIVISORS, "attention_factor")},
        architectures=None,
    ),
    "vLLM": Engine(
        "0.33.0",
        vllm,
        {
            **PLAIN,
            "dynamic": (),
            "yarn": FULL_YARN,
            "longrope": (ORIGINAL, "long_factor", "long_mscale"),
        },
    ),
    "SGLang": Engine(
        "0.5.23",
        sglang,
        {
            **PLAIN,
            "yarn": (*RAMP, *MSCALES, "attn_factor", "truncate"),
            "longrope": (ORIGINAL, *DIVISORS, "short_mscale", "long_mscale"),
        },
    ),
    "mlx-lm": Engine(
        "0.32.2",
        mlx_lm,
        {**PLAIN, "yarn": (*RAMP, *MSCALES), "longrope": (ORIGINAL, "long_factor")},
    ),
    "llama.cpp (its converter)": Engine(
        "0274f0f", converter, {**PLAIN, "llama3": LLAMA3, "dynamic": (), "yarn": YARN}
    ),
}
