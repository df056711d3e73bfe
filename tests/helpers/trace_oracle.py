"""A program: one small step in full on a CPU under torch's MemTracker and FlopCounterMode, then
traced. Prints peak bytes and FLOPs of both.

Both attend by the same plain operations, as the GPU's kernel does not run on a CPU.
"""

import json
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils.flop_counter import FlopCounterMode
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM

from ropewalk.train.loop.micro_batches import to_device
from ropewalk.train.loss_model import LossModel
from ropewalk.train.trace import step
from ropewalk.train.trace.plan import StepPlan

MODEL = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 1024,
}
DOCUMENTS = (192, 64)
TRAIN: dict[str, Any] = {
    "precision": "fp32",
    "zero_stage": 0,
    "memory": {"activation_checkpointing": False},
}


def plain(
    module: Any, query: Any, key: Any, value: Any, mask: None, *, scaling: float, **kwargs: Any
) -> tuple[torch.Tensor, None]:
    """Every document alone, by matrix products; without a causal mask, which costs the same."""
    parts = []
    for start, end in pairwise(kwargs["document_ends"]):
        q, k, v = (x[:, :, start:end] for x in (query, key, value))
        parts.append((q @ k.transpose(2, 3) * scaling).softmax(-1) @ v)
    return torch.cat(parts, dim=2).transpose(1, 2), None


def real() -> dict[str, int]:
    """Two steps on the CPU."""
    AttentionInterface.register("plain", plain)
    config = AutoConfig.for_model(**MODEL)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="plain")
    module = LossModel(model).train()
    adamw = torch.optim.AdamW(list(model.parameters()), fused=True)
    tracker, counter = MemTracker(), FlopCounterMode(display=False)
    tracker.track_external(model, adamw)
    row, cpu = step._row(DOCUMENTS), torch.device("cpu")
    with tracker:
        for _ in range(2):
            tracker.reset_mod_stats()
            loss = module(**to_device(row, cpu), total_labels=256)
            loss.backward()
            torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
            adamw.step()
            adamw.zero_grad(set_to_none=True)
            del loss
    with counter:  # apart: it computes an operation that it does not know by several others
        module(**to_device(row, cpu), total_labels=256).backward()
    peak = tracker.get_tracker_snapshot("peak")[cpu]["Total"]
    return {"peak": peak, "flops": counter.get_total_flops()}


def traced() -> dict[str, int]:
    step.GPU_KERNELS = {"varlen": SimpleNamespace(function=plain)}  # type: ignore[dict-item]
    result = step.trace_step(StepPlan(model=MODEL, documents=DOCUMENTS, train=TRAIN))
    return {"peak": result.peak_bytes, "flops": result.product_flops}


if __name__ == "__main__":
    # in this order: autograd counts the devices at its first backward pass
    result = {"traced": traced()}
    print(json.dumps(result | {"real": real()}))
