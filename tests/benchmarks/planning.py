"""What `ropewalk plan` would have said of published runs, beside what was published.

`make planning` writes the tables of docs/planning.md anew. The runs are of other programs: their
loss, which holds all logits at once, and their settings are traced in place of ours; fused kernels
of theirs (Liger, torch.compile, fp8) are not. Nothing is fitted.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import common

DOCUMENT = common.ROOT / "docs" / "planning.md"
GIB = 2**30
LLAMA_8B = (4096, 14_336, 32, 32, 8, 128_256)
LLAMA_70B = (8192, 28_672, 80, 64, 8, 128_256)
LLAMA2_7B = (4096, 11_008, 32, 32, 32, 32_000)
QWEN3_4B = (2560, 9728, 36, 32, 8, 151_936)
QWEN3_8B = (4096, 12_288, 36, 32, 8, 151_936)
QWEN3_32B = (5120, 25_600, 64, 64, 8, 151_936)
QWEN25_7B = (3584, 18_944, 28, 28, 4, 152_064)
QWEN25_32B = (5120, 27_648, 64, 40, 8, 152_064)
OFFLOADED = {"offload_params": True, "offload_optimizer": True}
K = 1024
ALST = "ALST recipes, DeepSpeed"
TITAN = "torchtitan benchmarks 2024-12"
ULYSSES = "HF blog on Ulysses, second-hand"


@dataclass(frozen=True)
class Memory:
    """A published peak of one GPU in GiB."""

    run: str
    published: float
    kind: str
    """reserved, nvml (with the driver's own), allocated or unknown."""
    source: str
    shape: tuple[int, ...]
    tokens: int
    gpus: int
    sp_size: int
    memory: dict[str, Any] = field(default_factory=dict)
    zero_stage: int = 3
    sequences: int = 1
    """In a micro-batch."""
    note: str = ""


FP8 = "compile and fp8 not traced"
MEMORY = (
    Memory("Llama-8B, 32K, 1 x H100", 71.91, "nvml", ALST, LLAMA_8B, 32_000, 1, 1, OFFLOADED),
    Memory("Llama-8B, 65K, 1 x H200", 137.36, "nvml", ALST, LLAMA_8B, 65_000, 1, 1, OFFLOADED),
    *(
        Memory(
            f"Llama-8B, {32 * sp}K, 8 x H100, CP {sp}",
            published,
            "reserved",
            TITAN,
            LLAMA_8B,
            32 * K * sp,
            8,
            sp,
            note=FP8 + ("" if sp == 1 else "; ring attention traced as Ulysses"),
        )
        for sp, published in ((1, 83.9), (2, 84.2), (4, 84.0), (8, 84.5))
    ),
    *(
        Memory(
            f"Qwen3-4B, {length}K, 4 x H100, sp 4",
            published,
            "unknown",
            ULYSSES,
            QWEN3_4B,
            length * K,
            4,
            4,
        )
        for length, published in ((8, 22.8), (64, 50.5), (96, 66.0))
    ),
    Memory(
        "Qwen3-8B, 1M, 8 x H100, CP 8",
        56.2,
        "unknown",
        "TRL issue",
        QWEN3_8B,
        1024 * K,
        8,
        8,
        {"offload_activations": True},
        note="ring attention traced as Ulysses",
    ),
    *(
        Memory(
            f"7B, 32K, 8 x A100, sp 4, ZeRO {stage}, {'' if recomputed else 'not '}recomputed",
            published,
            "unknown",
            "DeepSpeed#5305",
            LLAMA2_7B,
            32 * K,
            8,
            4,
            {"activation_checkpointing": recomputed},
            stage,
            note="Megatron-DeepSpeed; its shapes are assumed to be Llama-2's",
        )
        for stage, recomputed, published in (
            (3, True, 52.8),
            (2, True, 43.8),
            (3, False, 75.2),
            (2, False, 62.3),
        )
    ),
)


@dataclass(frozen=True)
class Speed:
    """A published speed in tokens a second and GPU."""

    run: str
    published: float
    source: str
    shape: tuple[int, ...]
    tokens: int
    gpus: int
    sp_size: int = 1
    hardware: str = "h100"
    is_fast: bool = False
    """Whether its attention is flash-attn 3 or cuDNN."""
    checkpointing: bool = True
    zero_stage: int = 3
    lora: bool = False
    micro_batches: int = 1
    note: str = ""


SELECTIVE = "selective recomputation taken as none"
MODEL = "AutoModel's summary"
SPEED = (
    *(
        Speed(
            f"Llama-8B, 2 x 8K, {gpus} x H100, {mode}",
            published,
            TITAN,
            LLAMA_8B,
            8 * K,
            gpus,
            checkpointing=False,
            micro_batches=2,
            note=SELECTIVE,
        )
        for gpus, mode, published in (
            (8, "eager", 5762),
            (8, "compiled", 6667),
            (128, "eager", 5605),
            (128, "compiled", 6514),
        )
    ),
    *(
        Speed(
            f"Llama-8B, {32 * sp}K, 8 x H100, CP {sp}, fp8",
            published,
            TITAN,
            LLAMA_8B,
            32 * K * sp,
            8,
            sp,
            note="fp8 products taken as bf16" + ("" if sp == 1 else "; a ring, taken as Ulysses"),
        )
        for sp, published in ((1, 3890), (2, 2540), (4, 1071), (8, 548))
    ),
    Speed(
        "Llama-8B, 128K, 8 x H100, UPipe",
        2280,
        "arXiv 2602.21196, listing",
        LLAMA_8B,
        128 * K,
        8,
        8,
        is_fast=True,
        note="recomputes and offloads",
    ),
    Speed(
        "Qwen3-32B, 128K, 16 x H100, UPipe",
        483,
        "arXiv 2602.21196, listing",
        QWEN3_32B,
        128 * K,
        16,
        8,
        is_fast=True,
        note="recomputes and offloads",
    ),
    *(
        Speed(
            f"Qwen3-4B, {length}K, 4 x H100, sp 4",
            published / 4,
            ULYSSES,
            QWEN3_4B,
            length * K,
            4,
            4,
        )
        for length, published in ((32, 7733), (64, 13_396))
    ),
    *(
        Speed(
            f"7B, 32K, 8 x A100, sp 4, ZeRO {stage}, {'' if again else 'not '}recomputed",
            16 * 32 * K / seconds / 8,
            "DeepSpeed#5305",
            LLAMA2_7B,
            32 * K,
            8,
            4,
            "a100_80",
            checkpointing=again,
            zero_stage=stage,
            micro_batches=8,
        )
        for stage, again, seconds in ((3, True, 13.0), (2, True, 13.2), (3, False, 10.3))
    ),
    Speed("Llama-70B, 8K, 64 x H100", 867, MODEL, LLAMA_70B, 8 * K, 64, 2, note="CP 2 as sp 2"),
    *(
        Speed(
            f"{name}, LoRA, 4K, {gpus} x H100",
            published,
            MODEL,
            shape,
            4 * K,
            gpus,
            checkpointing=False,
            zero_stage=2 if gpus == 1 else 3,
            lora=True,
            note="" if gpus == 1 else "TP taken as ZeRO 3",
        )
        for name, shape, gpus, published in (
            ("Llama-8B", LLAMA_8B, 1, 12_473),
            ("Qwen2.5-7B", QWEN25_7B, 1, 14_110),
            ("Llama-70B", LLAMA_70B, 8, 1092),
            ("Qwen2.5-32B", QWEN25_32B, 8, 2250),
        )
    ),
)


def config_of(shape: Sequence[int]) -> dict[str, Any]:
    hidden, inner, layers, heads, kv_heads, vocabulary = shape
    qwen3 = vocabulary == 151_936
    return {
        "model_type": "qwen3" if qwen3 else "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "head_dim": 128,
        "max_position_embeddings": 1 << 20,
        "tie_word_embeddings": False,
    }


# -- in the children -------------------------------------------------------------------------------


def traced(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Peaks of points that share a number of GPUs and an sp_size, with all logits at once."""
    import torch
    import torch.nn.functional as F

    from ropewalk.train import loss_model
    from ropewalk.train.trace.plan import StepPlan
    from ropewalk.train.trace.step import trace_step

    def whole(
        hidden: torch.Tensor, head: torch.Tensor, labels: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """transformers' loss: fp32 logits of every token."""
        logits = (hidden @ head.T).float()
        loss = F.cross_entropy(logits, labels, reduction="sum")
        return loss, loss.detach().clone()

    loss_model.summed_objective = whole
    results = []
    for point in points:
        train = {
            "precision": "bf16",
            "zero_stage": point["zero_stage"],
            "sp_size": point["sp_size"],
            "memory": {"keep_attention": False, **point["memory"]},
        }
        length = point["tokens"] - point["tokens"] % point["sp_size"]
        trace = trace_step(StepPlan(config_of(point["shape"]), (length,), train, point["gpus"]))
        results.append({"allocated": trace.peak_bytes, **trace.reserved})
    return results


def timed(points: Sequence[dict[str, Any]]) -> list[float]:
    """Tokens a second and GPU."""
    return [_speed(point) for point in points]


def _speed(point: dict[str, Any]) -> float:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from ropewalk.conf import hardware_file
    from ropewalk.train.cost.flops import model_cost
    from ropewalk.train.cost.layer_traffic import layer_traffic
    from ropewalk.train.cost.step_time import Choices, Rates, step_time
    from ropewalk.train.cost.traffic import ParallelLayout, model_sizes

    config = AutoConfig.for_model(**config_of(point["shape"]))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    if point["lora"]:  # adapters of some permille are taken as nothing
        model.requires_grad_(False)
        next(iter(model.parameters())).requires_grad_(True)
    layout = ParallelLayout(
        point["gpus"] // point["sp_size"],
        point["sp_size"],
        point["zero_stage"],
        point["micro_batches"],
        point["tokens"],
        checkpointing=point["checkpointing"],
    )
    rates = Rates.of(hardware_file.load(point["hardware"]), is_fast=point["is_fast"])
    time = step_time(
        model_cost(model),
        model_sizes(model),
        layer_traffic(config),
        layout,
        rates,
        Choices(attention_kept=False),
        [point["tokens"]],
    )
    tokens = point["tokens"] * layout.dp_size * point["micro_batches"]
    return tokens / time.seconds / point["gpus"]


# -- in the parent ---------------------------------------------------------------------------------


def child(kind: str, points: Sequence[Any]) -> list[Any]:
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.run(
        [sys.executable, __file__, kind],
        input=json.dumps([asdict(point) for point in points]),
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    if process.returncode:
        raise RuntimeError(process.stderr)
    answers: list[Any] = json.loads(process.stdout.splitlines()[-1])
    return answers


def memory_rows() -> list[str]:
    """One line a run. nvml counts what the driver takes too, which the hardware file assumes."""
    from ropewalk.conf import hardware_file

    context = hardware_file.load("h100").context_mib.value * 2**20
    groups: dict[tuple[int, int], list[Memory]] = {}
    for point in MEMORY:
        groups.setdefault((point.gpus, point.sp_size), []).append(point)
    answers: dict[str, dict[str, float]] = {}
    for points in groups.values():
        answers |= {
            p.run: answer for p, answer in zip(points, child("traced", points), strict=True)
        }
        common.say(f"  {points[0].gpus} GPUs, sp {points[0].sp_size}")
    lines = []
    for point in MEMORY:
        extra = context if point.kind in ("nvml", "unknown") else 0
        parts = [
            (answers[point.run][key] + extra * (key != "allocated")) / GIB
            for key in ("allocated", "expandable", "native")
        ]
        ratios = " / ".join(f"{part / point.published:.2f}" for part in parts[1:])
        figures = " | ".join(f"{part:.1f}" for part in parts)
        lines.append(
            f"| {point.run} | {point.published} | {point.kind} | {figures} | {ratios} | "
            f"{point.source}{'; ' if point.note else ''}{point.note} |"
        )
    return lines


def speed_rows() -> list[str]:
    return [
        f"| {point.run} | {point.published:,.0f} | {ours:,.0f} | {ours / point.published:.2f} | "
        f"{point.source}{'; ' if point.note else ''}{point.note} |"
        for point, ours in zip(SPEED, child("timed", SPEED), strict=True)
    ]


def document_with(text: str, name: str, lines: Sequence[str]) -> str:
    """`text` with the lines of a table between its marks."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)"
    new, count = re.subn(pattern, lambda m: m[1] + "\n".join(lines) + "\n" + m[2], text, flags=re.S)
    assert count == 1, name
    return new


def main() -> None:
    text = DOCUMENT.read_text()
    speed_head = ["| run | published | plan | ratio | source |", "|--|--|--|--|--|"]
    text = document_with(text, "speed", [*speed_head, *speed_rows()])
    DOCUMENT.write_text(text)
    memory_head = [
        "| run | published | kind | tensors | expandable | native | ratios | source |",
        "|--|--|--|--|--|--|--|--|",
    ]
    DOCUMENT.write_text(document_with(text, "memory", [*memory_head, *memory_rows()]))


PARTS = {"traced": traced, "timed": timed}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=PARTS, help="in a child: values on stdin")
    if (part := parser.parse_args().part) is None:
        main()
    else:
        print(json.dumps(PARTS[part](json.load(sys.stdin))), flush=True)
        os._exit(0)  # a registered accelerator may not end in good order
