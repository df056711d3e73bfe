"""Where the time of a step goes on H100s, by arithmetic; docs/performance.md holds the table.

`python tests/benchmarks/performance.py` writes the tables of docs/performance.md anew. Nothing here
is measured: counts of this code's operations over rates that train/cost/step_time.py names.
"""

import re
from dataclasses import dataclass
from typing import Any

import common

DOCUMENT = common.ROOT / "docs" / "performance.md"
SHAPES = {"8B": (4096, 14_336, 32, 32), "70B": (8192, 28_672, 80, 64)}  # Llama 3's, 8 kv heads


@dataclass(frozen=True)
class Job:
    """One micro-step of one sequence in each data-parallel group."""

    model: str
    tokens: int
    dp_size: int
    sp_size: int
    zero_stage: int
    checkpointing: bool = True

    @property
    def label(self) -> str:
        size = f"{self.tokens // 1024}K"
        kept = "" if self.checkpointing else ", nothing computed again"
        return (
            f"{self.model}, {size}, {self.dp_size * self.sp_size} H100, "
            f"sp {self.sp_size}, ZeRO {self.zero_stage}{kept}"
        )


JOBS = (
    Job("8B", 32_768, 1, 8, 2, checkpointing=False),
    Job("8B", 131_072, 1, 8, 2),
    Job("8B", 524_288, 1, 8, 2),
    Job("70B", 131_072, 8, 8, 3),
)
ARMS = ("varlen", "flash-attn 3", "attention kept", "compiled")
BARS = {("8B", 32_768, "compiled"): 0.50, ("8B", 131_072, "attention kept"): 0.42}


# -- in the child ----------------------------------------------------------------------------------


def tables() -> dict[str, Any]:
    """The terms of each job and arm, and the published runs: {"jobs": ..., "published": ...}."""
    return {
        "jobs": [{arm: _terms(job, arm) for arm in ARMS} for job in JOBS],
        "published": _published(),
        "lifts": _lifts(),
    }


def _terms(job: Job, arm: str, **rates: float) -> dict[str, Any]:
    """Seconds by term, MFU and tokens a second and device."""
    from ropewalk.train.cost.step_time import FLASH_2, FLASH_3, Choices, Rates, step_time
    from ropewalk.train.cost.traffic import ParallelLayout
    from ropewalk.train.loss import chunk_tokens

    counts = _counts(job.model)
    layout = ParallelLayout(
        job.dp_size,
        job.sp_size,
        job.zero_stage,
        1,
        job.tokens,
        checkpointing=job.checkpointing,
        loss_chunk=chunk_tokens(counts["sizes"].vocabulary, "cuda"),
    )
    fused = arm == "compiled"
    step = step_time(
        counts["cost"],
        counts["sizes"],
        counts["fused" if fused else "eager"],
        layout,
        Rates(FLASH_2 if arm == "varlen" else FLASH_3, **rates),
        Choices(attention_kept=arm in ("attention kept", "compiled")),
        [job.tokens],
    )
    return {
        "terms": step.terms,
        "seconds": step.seconds,
        "mfu": step.mfu,
        "speed": job.tokens * job.dp_size / step.devices / step.seconds,
        "activations": _activation_bytes(job, arm, counts) / 1e9,
    }


def _activation_bytes(job: Job, arm: str, counts: dict[str, Any]) -> float:
    """Bytes that all layers hold between the passes on one device, bf16."""
    sizes = counts["sizes"]
    if job.checkpointing:
        of_token = 2.0 * sizes.hidden
        if arm in ("attention kept", "compiled"):
            of_token += sizes.heads * (2 * sizes.head_dim + 4)  # the output and its log-sum-exp
    else:
        of_token = counts["eager"].saved
    return of_token * sizes.layers * job.tokens / job.sp_size


_known: dict[str, dict[str, Any]] = {}


def _counts(model: str) -> dict[str, Any]:
    """FLOPs, sizes and elementwise bytes of a model that is built on the meta device."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from ropewalk.train.cost import flops, layer_traffic, traffic

    if model not in _known:
        hidden, inner, layers, heads = SHAPES[model]
        config = LlamaConfig(
            vocab_size=128_256,
            hidden_size=hidden,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=8,
            tie_word_embeddings=False,
        )
        with torch.device("meta"):
            built = AutoModelForCausalLM.from_config(config)
        _known[model] = {
            "cost": flops.model_cost(built),
            "sizes": traffic.model_sizes(built),
            "eager": layer_traffic.layer_traffic(config),
            "fused": layer_traffic.fused_layer_traffic(config),
        }
    return _known[model]


def _published() -> list[dict[str, Any]]:
    """Others' tokens a second and GPU, and the same job by this arithmetic."""
    eight = Job("8B", 131_072, 1, 8, 3)
    short = Job("8B", 8192, 8, 1, 3)
    return [
        {
            "run": "UPipe (arXiv 2602.21196): Llama 3 8B, 128K, 8 H100, flash-attn 3, everything "
            "computed again, MLP in tiles, activations offloaded",
            "published": 2280,
            "ours": _terms(eight, "flash-attn 3")["speed"],
        },
        {
            "run": "torchtitan (docs, December 2024): Llama 3.1 8B, 8K, 8 H100 of 500 W and "
            "2.4 TB/s, FSDP, selective recomputation, eager",
            "published": 5762,
            "ours": _terms(short, "attention kept", memory=1.9e12)["speed"],
        },
        {
            "run": "the same with torch.compile",
            "published": 6667,
            "ours": _terms(short, "compiled", memory=1.9e12)["speed"],
        },
    ]


def _lifts() -> list[tuple[str, float]]:
    """What would take the compiled arms further, and the MFU that it would give."""
    short, long = JOBS[0], JOBS[1]
    base = _terms(long, "compiled")
    backward, linear = base["terms"]["attention, backward"], base["terms"]["linear layers"]
    faster = base["seconds"] - backward * (1 - 0.535 / 0.65)  # 530 of 989 TFLOP/s now
    useful = base["mfu"] * base["seconds"]
    return [
        (
            f"{short.label}: products in fp8, 1.4 times as fast",
            _terms(short, "compiled", product_flops=1.4 * 680e12)["mfu"],
        ),
        (f"{long.label}: attention's backward pass at 65% of the peak", useful / faster),
        ("and the linear layers' results kept in host memory", useful / (faster - linear / 4)),
    ]


# -- in the parent ---------------------------------------------------------------------------------


def performance(quick: bool) -> list[dict[str, Any]]:
    """Prints the tables; a row for each job and arm with its model FLOPs utilisation."""
    computed = common.child("performance:tables")
    common.say(render(computed))
    rows = []
    for job, arms in zip(JOBS, computed["jobs"], strict=True):
        for arm, values in arms.items():
            bar = BARS.get((job.model, job.tokens, arm))
            name = f"expected_mfu_{job.model}_{job.tokens}_{arm.replace(' ', '_')}"
            rows.append(
                common.result(
                    name, values["mfu"], "of peak", bar=bar and f"value >= {bar}", measured=False
                )
            )
    return rows


def render(computed: dict[str, Any]) -> str:
    """The Markdown of both tables."""
    jobs = [_job_table(job, arms) for job, arms in zip(JOBS, computed["jobs"], strict=True)]
    published = ["| published run | tokens/s/GPU | by this arithmetic | ratio |", "|--|--|--|--|"]
    published += [
        f"| {row['run']} | {row['published']:,} | {row['ours']:,.0f} "
        f"| {row['ours'] / row['published']:.2f} |"
        for row in computed["published"]
    ]
    lifts = ["| what would lift the compiled arms | MFU |", "|--|--|"]
    lifts += [f"| {what} | {mfu:.0%} |" for what, mfu in computed["lifts"]]
    return "\n\n".join([*jobs, "\n".join(published), "\n".join(lifts)])


def _job_table(job: Job, arms: dict[str, Any]) -> str:
    """Seconds of each term under each arm, and their sums."""
    lines = [f"**{job.label}**", "", f"| seconds | {' | '.join(ARMS)} |", "|--" * 5 + "|"]
    for term in arms[ARMS[0]]["terms"]:
        values = [arms[arm]["terms"][term] for arm in ARMS]
        lines.append(f"| {term} | " + " | ".join(f"{value:.2f}" for value in values) + " |")
    sums = (
        ("step", "seconds", ".2f"),
        ("MFU", "mfu", ".1%"),
        ("tokens/s/GPU", "speed", ",.0f"),
        ("activations held, GB a GPU", "activations", ".1f"),
    )
    for label, name, unit in sums:
        cells = [f"**{arms[arm][name]:{unit}}**" for arm in ARMS]
        lines.append(f"| **{label}** | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def document_with(text: str, table: str) -> str:
    """docs/performance.md with its generated part replaced."""
    return re.sub(
        r"(<!-- tables -->\n).*(<!-- end of tables -->)",
        lambda match: f"{match[1]}\n{table}\n\n{match[2]}",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    DOCUMENT.write_text(document_with(DOCUMENT.read_text(), render(tables())))
