"""Real peaks of a CPU's memory beside the plan of the same step; part of planning.py.

A step is forward, backward and AdamW of a small model with our loss and checkpointing. What is read
is resident memory, its highest value in the step above the one before it, which weights and moments
are part of. glibc is told to return every tensor when it is freed (a mapping of its own from 64 KiB
on, one arena), so that its allocator keeps nothing. Attention is the CPU's flash kernel, of which
the trace has what it returns; the chunks of the loss are a GPU's.

    S tokens   H heads   D head size
"""

import gc
from dataclasses import dataclass
from typing import Any

import common

MALLOC = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "0",
    "MALLOC_TOP_PAD_": "0",
}
WARM_UP = 64
"""Tokens of a first step, which loads libraries and makes the moments."""


@dataclass(frozen=True)
class CpuStep:
    layers: int
    hidden: int
    vocabulary: int
    tokens: int
    checkpointing: bool = True
    tile: int = 0

    @property
    def run(self) -> str:
        again = "" if self.checkpointing else ", nothing computed again"
        tiled = f", tiles of {self.tile:,}" if self.tile else ""
        return (
            f"{self.layers} layers of {self.hidden}, {self.vocabulary:,} words, "
            f"{self.tokens:,} tokens{again}{tiled}"
        )

    @property
    def model(self) -> dict[str, Any]:
        return {
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": 4 * self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.hidden // 64,
            "num_key_value_heads": self.hidden // 64,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 1 << 17,
            "tie_word_embeddings": False,
        }

    @property
    def train(self) -> dict[str, Any]:
        memory = {
            "activation_checkpointing": self.checkpointing,
            "keep_attention": False,
            "tile_mlp_tokens": self.tile,
        }
        return {"precision": "fp32", "zero_stage": 0, "memory": memory}


STEPS = (
    CpuStep(2, 256, 2048, 16_384),
    CpuStep(4, 384, 8192, 8192),
    CpuStep(4, 512, 16_384, 4096, checkpointing=False),
    CpuStep(6, 512, 32_768, 4096),
    CpuStep(2, 512, 4096, 8192, tile=1024),
)


# -- in the children -------------------------------------------------------------------------------


def planned(rows: list[dict[str, Any]]) -> list[int]:
    """Bytes above those at rest, of each step."""
    from types import SimpleNamespace

    from ropewalk.train.trace import step
    from ropewalk.train.trace.plan import StepPlan

    step.GPU_KERNELS = {"varlen": SimpleNamespace(function=_attention())}  # type: ignore[dict-item]
    results = []
    for row in rows:
        point = CpuStep(**row)
        trace = step.trace_step(StepPlan(point.model, (point.tokens,), point.train))
        results.append(trace.peak_bytes - sum(trace.bytes_at_rest.values()))
    return results


def measured(rows: list[dict[str, Any]]) -> list[int]:
    """The same of a real step, by resident memory. One step a child."""
    import torch
    from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM

    from ropewalk.train import loss
    from ropewalk.train.loop.micro_batches import to_device
    from ropewalk.train.loss_model import LossModel
    from ropewalk.train.trace.plan import StepPlan
    from ropewalk.train.trace.step import _row, train_config
    from ropewalk.train.zero.engine import apply_memory_settings

    (point,) = (CpuStep(**row) for row in rows)
    loss.CHUNK_BYTES["cpu"] = loss.CHUNK_BYTES["cuda"]
    AttentionInterface.register("of_cpu", _attention())
    config = AutoConfig.for_model(**point.model)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="of_cpu")
    apply_memory_settings(model, train_config(StepPlan(point.model, (1,), point.train)), None)
    module = LossModel(model).train()
    adamw = torch.optim.AdamW(list(model.parameters()), fused=True)

    def run(tokens: int) -> None:
        row = to_device(_row((tokens,)), torch.device("cpu"))
        module(**row, total_labels=tokens).backward()
        torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        adamw.step()
        adamw.zero_grad(set_to_none=True)

    run(WARM_UP)
    gc.collect()
    peak = common.Peak()
    run(point.tokens)
    return [round(peak.mib() * common.MIB)]


def _attention() -> Any:
    import torch

    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

    class Attention(torch.autograd.Function):
        """(1, H, S, D) -> (1, H, S, D) by the CPU's kernel, or its tensors alone in a trace."""

        @staticmethod
        def forward(ctx: Any, *inputs: torch.Tensor) -> torch.Tensor:
            if inputs[0].device.type == "cpu":
                output, lse = flash(*inputs, 0.0, True)
            else:
                output = torch.empty_like(inputs[0])
                lse = output.new_empty(output.shape[:-1], dtype=torch.float32)
            ctx.save_for_backward(*inputs, output, lse)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, ...]:
            saved = ctx.saved_tensors
            if saved[0].device.type == "cpu":
                made: tuple[torch.Tensor, ...] = flash_backward(grads[0], *saved, 0.0, True)
                return made
            return tuple(torch.empty_like(one) for one in saved[:3])

    def attend(module: Any, query: Any, key: Any, value: Any, mask: Any, **_: Any) -> Any:
        return Attention.apply(query, key, value).transpose(1, 2), None

    return attend
